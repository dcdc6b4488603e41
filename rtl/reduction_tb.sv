// Runs points (tiles) from a file through decoder, sequencer and reduction-spatial array; one RESULT line per point.
//
// Point file, decimal numbers: point count, then per point
//   id, K, N, T, A[K][T], B[N][T], mask[K][N], golden[K][N]
// RESULT id cycles a_reads b_reads writes errors decode_cycles mask_bits issued macs adds passes
//
// `writes` are the selected elements at the end; `issued` counts their accumulator read-modify-writes.
`timescale 1ns / 1ns
// 32-bit integers index small memories.
// verilator lint_off UNUSEDSIGNAL
module reduction_tb #(
    parameter int GROUPS = 2,
    parameter int LANES = 4,
    parameter int REGISTERS = 8,
    parameter int OPERAND_BYTES = 1,
    parameter int PORT_A_BYTES = 4,
    parameter int PORT_B_BYTES = 4,
    parameter int MUTATION = 0
);
    localparam int WORDS = 65536;
    localparam int INDEX_BITS = 12;
    localparam int WIDTH = 8;
    localparam int A_SLOTS = (PORT_A_BYTES + OPERAND_BYTES - 1) / OPERAND_BYTES;
    localparam int B_SLOTS = (PORT_B_BYTES + OPERAND_BYTES - 1) / OPERAND_BYTES;

    logic clk = 0, decode_clk = 0, rst = 1, start = 0, decode_start = 0;
    integer k_size = 1, n_size = 1, t_size = 1;

    byte    a_buffer [0:WORDS-1];
    byte    b_buffer [0:WORDS-1];
    bit     mask [0:WORDS-1];
    integer golden [0:WORDS-1];
    integer result [0:WORDS-1];
    integer updates [0:WORDS-1];

    wire        decoded;
    wire [31:0] blocks, mask_row, mask_column, block_rows, block_columns;
    wire [REGISTERS*32-1:0] row_index;
    wire [GROUPS*32-1:0] column_index;
    wire [GROUPS*REGISTERS-1:0] mask_words;
    logic [WIDTH-1:0] mask_bits = 0;
    wire [31:0] block, load_batch;
    logic [31:0] lookup = 0;   // the batch whose columns are asked for
    logic [GROUPS*REGISTERS-1:0] next_words = 0;
    column_decoder #(.GROUPS(GROUPS), .REGISTERS(REGISTERS), .WIDTH(WIDTH), .INDEX_BITS(INDEX_BITS)) decoder (
        .clk(decode_clk), .rst(rst), .start(decode_start), .rows(k_size), .columns(n_size), .done(decoded),
        .blocks(blocks), .mask_row(mask_row), .mask_column(mask_column), .mask_bits(mask_bits),
        .block(block[INDEX_BITS-1:0]), .batch(lookup), .block_rows(block_rows), .block_columns(block_columns),
        .row_index(row_index), .column_index(column_index), .mask_words(mask_words));

    wire        busy, load_bank, fetch, moving;
    wire [31:0] first_term, chunk_terms, a_position, a_words, b_position, b_words;
    wire [GROUPS-1:0] issue_valid, sum_valid;
    wire [GROUPS*8-1:0] issue_register, sum_register;
    wire [15:0] issue_batch;
    reduction_sequencer #(
        .GROUPS(GROUPS), .LANES(LANES), .REGISTERS(REGISTERS), .OPERAND_BYTES(OPERAND_BYTES),
        .PORT_A_BYTES(PORT_A_BYTES), .PORT_B_BYTES(PORT_B_BYTES), .MUTATE_PREFETCH(MUTATION == 1 ? 1 : 0),
        .MUTATE_WALK(MUTATION == 2 ? 1 : 0), .MUTATE_FLUSH(MUTATION == 3 ? 1 : 0)
    ) sequencer (
        .clk(clk), .rst(rst), .start(start), .blocks(blocks), .terms(t_size), .block_rows(block_rows),
        .block_columns(block_columns), .mask_words(next_words), .moving(moving), .busy(busy), .block(block),
        .first_term(first_term), .chunk_terms(chunk_terms), .a_position(a_position), .a_words(a_words),
        .load_batch(load_batch), .b_position(b_position), .b_words(b_words), .load_bank(load_bank),
        .issue_valid(issue_valid), .issue_register(issue_register), .issue_batch(issue_batch), .fetch(fetch));

    logic [A_SLOTS-1:0] a_valid = 0;
    logic [A_SLOTS*8-1:0] a_lane = 0, a_register = 0, a = 0;
    logic [GROUPS*B_SLOTS-1:0] b_valid = 0;
    logic [B_SLOTS*8-1:0] b_lane = 0, b = 0;
    wire [GROUPS*16-1:0] sum_batch;
    wire [GROUPS*32-1:0] sum;
    wire [GROUPS*LANES-1:0] multiplying, adding;
    reduction_array #(
        .GROUPS(GROUPS), .LANES(LANES), .REGISTERS(REGISTERS), .A_SLOTS(A_SLOTS), .B_SLOTS(B_SLOTS)
    ) array (
        .clk(clk), .rst(rst), .a_valid(a_valid), .a_lane(a_lane), .a_register(a_register), .a(a), .b_valid(b_valid),
        .b_lane(b_lane), .b(b), .load_bank(load_bank), .lanes(chunk_terms), .issue_valid(issue_valid),
        .issue_register(issue_register), .issue_batch(issue_batch), .moving(moving), .sum_valid(sum_valid),
        .sum_register(sum_register), .sum_batch(sum_batch), .sum(sum), .multiplying(multiplying), .adding(adding));

    integer a_reads, b_reads, writes, errors, cycles, decode_cycles, fetched_bits, issued, macs, adds, passes;
    integer lane, slot, file, status, points, point, id;
    reg [8*256-1:0] name;

    // The X registers keep words of the batch before: a live group's stale lanes must never be used.
    task automatic feed;
        integer word, register_, group;
        a_valid = 0;
        b_valid = 0;
        lookup = load_batch;
        #1 next_words = mask_words;
        if (a_words > A_SLOTS || b_words > B_SLOTS) errors = errors + 1;
        for (slot = 0; slot < A_SLOTS; slot = slot + 1)
            if (slot < a_words) begin
                word = a_position + slot;
                register_ = word / chunk_terms;
                a_valid[slot] = 1;
                a_register[slot*8 +: 8] = register_[7:0];
                word = word % chunk_terms;
                a_lane[slot*8 +: 8] = word[7:0];
                a[slot*8 +: 8] = a_buffer[row_index[register_*32 +: 32] * t_size + first_term + word];
                a_reads = a_reads + 1;
            end
        for (slot = 0; slot < B_SLOTS; slot = slot + 1)
            if (slot < b_words) begin
                word = b_position + slot;
                group = word / chunk_terms;
                word = word % chunk_terms;
                b_valid[group*B_SLOTS + slot] = 1;
                b_lane[slot*8 +: 8] = word[7:0];
                b[slot*8 +: 8] = b_buffer[column_index[group*32 +: 32] * t_size + first_term + word];
                b_reads = b_reads + 1;
            end
        if (fetch)
            for (lane = 0; lane < GROUPS; lane = lane + 1)
                if (column_index[lane*32 +: 32] != '1) fetched_bits = fetched_bits + block_rows;
    endtask

    task automatic accumulate;
        integer address;
        for (lane = 0; lane < GROUPS; lane = lane + 1)
            if (sum_valid[lane]) begin
                lookup = {16'b0, sum_batch[lane*16 +: 16]};
                #1 slot = {24'b0, sum_register[lane*8 +: 8]};
                if (column_index[lane*32 +: 32] == '1 || slot >= block_rows || (^sum[lane*32 +: 32]) === 1'bx)
                    errors = errors + 1;
                else begin
                    address = row_index[slot*32 +: 32] * n_size + column_index[lane*32 +: 32];
                    result[address] = result[address] + sum[lane*32 +: 32];
                    updates[address] = updates[address] + 1;
                    issued = issued + 1;
                end
            end
        for (lane = 0; lane < GROUPS * LANES; lane = lane + 1) begin
            macs = macs + {31'b0, multiplying[lane]};
            adds = adds + {31'b0, adding[lane]};
        end
    endtask

    task automatic check;
        integer at;
        for (at = 0; at < k_size * n_size; at = at + 1) begin
            if (updates[at] !== (mask[at] ? (t_size + LANES - 1) / LANES : 0)) errors = errors + 1;
            if (mask[at] && result[at] !== golden[at]) errors = errors + 1;
            if (updates[at] > 0) writes = writes + 1;
        end
    endtask

    task automatic read_point;
        integer at, value;
        status = $fscanf(file, "%d %d %d %d", id, k_size, n_size, t_size);
        for (at = 0; at < k_size * t_size; at = at + 1) begin
            status = $fscanf(file, "%d", value);
            a_buffer[at] = value[7:0];
        end
        for (at = 0; at < n_size * t_size; at = at + 1) begin
            status = $fscanf(file, "%d", value);
            b_buffer[at] = value[7:0];
        end
        for (at = 0; at < k_size * n_size; at = at + 1) begin
            status = $fscanf(file, "%d", value);
            mask[at] = value[0];
        end
        for (at = 0; at < k_size * n_size; at = at + 1) begin
            status = $fscanf(file, "%d", value);
            golden[at] = value;
            result[at] = 0;
            updates[at] = 0;
        end
    endtask

    task automatic reset;
        a_valid = 0; b_valid = 0; start = 0; decode_start = 0;
        rst = 1;
        #5 clk = 1; decode_clk = 1;
        #5 clk = 0; decode_clk = 0;
        rst = 0;
        a_reads = 0; b_reads = 0; writes = 0; errors = 0; cycles = 0; decode_cycles = 0;
        fetched_bits = 0; issued = 0; macs = 0; adds = 0; passes = 0;
    endtask

    task automatic decode;
        decode_start = 1;
        while (!decoded) begin
            for (lane = 0; lane < WIDTH; lane = lane + 1)
                mask_bits[lane] = (mask_column + lane < n_size) ? mask[mask_row * n_size + mask_column + lane] : 1'b0;
            #5 decode_clk = 1;
            #5 decode_clk = 0;
            decode_cycles = decode_cycles + 1;
        end
    endtask

    // A sequencer that never ends is an error, not an endless run.
    task automatic run;
        integer silent;
        silent = 0;
        start = 1;
        #5 clk = 1;
        #5 clk = 0;
        start = 0;
        while (busy && silent < 2000) begin
            feed;
            accumulate;
            if (a_words != 0 && a_position == 0) passes = passes + 1;
            cycles = cycles + 1;
            silent = (sum_valid == 0) ? silent + 1 : 0;
            #5 clk = 1;
            #5 clk = 0;
        end
        if (busy) errors = errors + 1;
    endtask

    initial begin
        if (!$value$plusargs("points=%s", name)) $fatal(1, "no +points=FILE");
        file = $fopen(name, "r");
        status = $fscanf(file, "%d", points);
        for (point = 0; point < points; point = point + 1) begin
            read_point;
            reset;
            decode;
            if (blocks > 0) run;
            check;
            $display("RESULT %0d %0d %0d %0d %0d %0d %0d %0d %0d %0d %0d %0d", id, cycles, a_reads, b_reads, writes,
                     errors, decode_cycles, fetched_bits, issued, macs, adds, passes);
        end
        $finish;
    end
endmodule
