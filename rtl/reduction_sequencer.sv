// Runs the passes of one tile through the reduction-spatial array, one after the other.
//
// For each block of up to REGISTERS live rows and each chunk of up to LANES terms:
//   preload   the block's dY words through port A
//   load      X words of the first batch of GROUPS live columns through port B
//   walk      every group issues one selected element of its column per cycle (priority encoder over the mask word);
//             beside it the next batch is loaded; both must be done before the next batch
//   flush     until the last element is accumulated
//
// `a_words` words move through port A in this cycle, from word `a_position` on (row-major over the block's rows and the
// chunk's terms), and likewise for port B (column by column of batch `load_batch`).
module reduction_sequencer #(
    parameter int GROUPS = 2,
    parameter int LANES = 4,
    parameter int REGISTERS = 8,
    parameter int OPERAND_BYTES = 1,
    parameter int PORT_A_BYTES = 4,
    parameter int PORT_B_BYTES = 4,
    parameter int MUTATE_PREFETCH = 0,  // 1: the next batch's load starts one cycle late
    parameter int MUTATE_WALK = 0,      // 1: a batch takes one more cycle after its last element
    parameter int MUTATE_FLUSH = 0      // 1: a pass ends one cycle after its last element is accumulated
) (
    input  logic                        clk,
    input  logic                        rst,
    input  logic                        start,
    input  logic [31:0]                 blocks,
    input  logic [31:0]                 terms,
    // of `block`
    input  logic [31:0]                 block_rows,
    input  logic [31:0]                 block_columns,
    input  logic [GROUPS*REGISTERS-1:0] mask_words,  // of batch `load_batch`; 0 for a group without a column
    input  logic                        moving,
    output logic                        busy,
    output logic [31:0]                 block,
    output logic [31:0]                 first_term,
    output logic [31:0]                 chunk_terms,
    output logic [31:0]                 a_position,
    output logic [31:0]                 a_words,
    output logic [31:0]                 load_batch,
    output logic [31:0]                 b_position,
    output logic [31:0]                 b_words,
    output logic                        load_bank,
    output logic [GROUPS-1:0]           issue_valid,
    output logic [GROUPS*8-1:0]         issue_register,
    output logic [15:0]                 issue_batch,
    output logic                        fetch  // the mask words are taken at the end of this cycle
);
    localparam logic [2:0] IDLE = 0, PRELOAD = 1, LOAD = 2, WALK = 3, FLUSH = 4;

    logic [2:0]  state;
    logic [31:0] credit;   // bytes of the port in use that have arrived and are not a whole word yet
    logic        loaded, extra_walk, extra_flush, late;
    logic [GROUPS*REGISTERS-1:0] pending;

    assign busy = (state != IDLE);
    assign chunk_terms = (terms - first_term < LANES) ? terms - first_term : LANES;

    wire [31:0] a_total = block_rows * chunk_terms;
    wire [31:0] a_arrived = (credit + PORT_A_BYTES) / OPERAND_BYTES;
    assign a_words = (state != PRELOAD) ? 0 : (a_total - a_position < a_arrived) ? a_total - a_position : a_arrived;
    wire a_done = (a_position + a_words == a_total);

    wire [31:0] columns_left = block_columns - load_batch * GROUPS;
    wire [31:0] load_columns = (columns_left < GROUPS) ? columns_left : GROUPS;
    wire        more = (load_batch * GROUPS < block_columns);
    wire        loading = (state == LOAD) | ((state == WALK) & more & !loaded & !late);
    wire [31:0] b_total = load_columns * chunk_terms;
    wire [31:0] b_arrived = (credit + PORT_B_BYTES) / OPERAND_BYTES;
    assign b_words = !loading ? 0 : (b_total - b_position < b_arrived) ? b_total - b_position : b_arrived;
    wire b_done = loaded | (loading & (b_position + b_words == b_total));

    wire [GROUPS*REGISTERS-1:0] rest;
    genvar g;
    generate
        for (g = 0; g < GROUPS; g = g + 1) begin : g_group
            wire [REGISTERS-1:0] mask = pending[g*REGISTERS +: REGISTERS];
            logic [7:0] lowest;
            integer bit_;
            always_comb begin
                lowest = 0;
                for (bit_ = REGISTERS - 1; bit_ >= 0; bit_ = bit_ - 1) if (mask[bit_]) lowest = 8'(bit_);
            end
            assign issue_valid[g] = (state == WALK) & |mask;
            assign issue_register[g*8 +: 8] = lowest;
            assign rest[g*REGISTERS +: REGISTERS] = mask & (mask - 1);
        end
    endgenerate

    wire walked = (rest == 0) & (MUTATE_WALK == 0 | extra_walk);
    wire advance = (state == LOAD) ? b_done : (state == WALK) & walked & more & b_done;
    wire flushed = !moving & (MUTATE_FLUSH == 0 | extra_flush);
    wire last_chunk = (first_term + LANES >= terms);
    wire last_block = (block + 1 == blocks);
    assign fetch = advance;

    always_ff @(posedge clk) begin
        if (rst) begin
            state <= IDLE;
            {block, first_term, a_position, b_position, load_batch, credit} <= '0;
            {loaded, load_bank, extra_walk, extra_flush, late, pending, issue_batch} <= '0;
        end else begin
            pending <= rest;
            extra_walk <= (rest == 0);
            extra_flush <= !moving & (state == FLUSH);
            late <= 0;
            if (loading) begin
                b_position <= b_position + b_words;
                credit <= credit + PORT_B_BYTES - b_words * OPERAND_BYTES;
                if (b_done) begin
                    loaded <= 1;
                    credit <= 0;
                end
            end
            if (advance) begin
                pending <= mask_words;
                issue_batch <= load_batch[15:0];
                load_batch <= load_batch + 1;
                load_bank <= ~load_bank;
                b_position <= 0;
                credit <= 0;
                loaded <= 0;
                extra_walk <= 0;
                late <= (MUTATE_PREFETCH != 0);
                state <= WALK;
            end
            case (state)
                IDLE: if (start) state <= PRELOAD;
                PRELOAD: begin
                    a_position <= a_position + a_words;
                    credit <= credit + PORT_A_BYTES - a_words * OPERAND_BYTES;
                    if (a_done) begin
                        credit <= 0;
                        state <= LOAD;
                    end
                end
                WALK: if (walked & !more) state <= FLUSH;
                FLUSH: if (flushed) begin
                    {a_position, load_batch} <= '0;
                    first_term <= last_chunk ? 0 : first_term + LANES;
                    if (last_chunk) block <= block + 1;
                    state <= (last_chunk & last_block) ? IDLE : PRELOAD;
                end
                default: ;
            endcase
        end
    end
endmodule
