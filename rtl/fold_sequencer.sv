// Runs the folds of one tile through the systolic array: every fold streams `length` operand vectors.
//
// Without overlap a fold starts in the cycle after the last result of the one before it has left, preload included.
// With overlap a new fold enters every max(length, ROWS) cycles: the drain (output stationary) or the preload
// (operand stationary) of ROWS cycles runs beside the stream. An output-stationary tile of several folds pads every
// fold to that interval; an only fold and the last operand-stationary one end with their stream.
//
// The outputs say what enters the array in this cycle. `results` is the number of results that the fold named by
// `fold` will deliver, `leaving` the number of those in the array's output registers now.
module fold_sequencer #(
    parameter int ROWS = 4,
    parameter int MUTATE_INTERVAL = 0,  // subtracted from the interval of overlapped folds
    parameter int MUTATE_LENGTH = 0,    // subtracted from the streamed length
    parameter int MUTATE_PRELOAD = 0    // added to the cycles of the first preload
) (
    input  logic        clk,
    input  logic        rst,
    input  logic        start,
    input  logic        stationary,
    input  logic        overlap,
    input  logic [31:0] folds,
    input  logic [31:0] length,
    input  logic [31:0] results,
    input  logic [31:0] leaving,
    output logic        busy,
    output logic        select,
    output logic        stream_valid,
    output logic [31:0] fold,
    output logic [31:0] term,
    output logic        preload_valid,
    output logic [31:0] preload_fold,
    output logic [31:0] preload_row
);
    localparam logic [1:0] IDLE = 0, PRELOAD = 1, STREAM = 2, DRAIN = 3;

    logic [1:0]  state_q;
    logic [31:0] fold_q, position_q, outstanding_q;
    logic        select_q;

    // A fold that has drained makes this very cycle the first one of the next fold.
    wire        drained = (state_q == DRAIN) & (outstanding_q == leaving);
    wire        last_q = (fold_q + 1 == folds);
    wire [1:0]  state = !drained ? state_q : last_q ? IDLE : stationary ? PRELOAD : STREAM;
    wire [31:0] position = drained ? 0 : position_q;
    assign fold = (drained & !last_q) ? fold_q + 1 : fold_q;

    wire        last = (fold + 1 == folds);
    wire [31:0] interval = ((length > ROWS) ? length : ROWS) - MUTATE_INTERVAL;
    wire        padded = overlap & (folds > 1) & !(stationary & last);
    wire [31:0] stream_cycles = padded ? interval : length;
    wire        first = (state == STREAM) & (position == 0);
    wire        flip = first | ((state == DRAIN) & (position == 0) & !stationary);
    wire        beside = (state == STREAM) & stationary & overlap & !last;

    assign busy = (state != IDLE);
    assign select = select_q ^ flip;
    assign term = position;
    assign stream_valid = (state == STREAM) & (position < length - MUTATE_LENGTH);
    assign preload_valid = ((state == PRELOAD) | beside) & (position < ROWS);
    assign preload_fold = beside ? fold + 1 : fold;
    assign preload_row = position;

    always_ff @(posedge clk) begin
        if (rst) begin
            state_q <= IDLE;
            fold_q <= 0;
            position_q <= 0;
            outstanding_q <= 0;
            select_q <= 0;
        end else begin
            select_q <= select;
            outstanding_q <= outstanding_q + (first ? results : 0) - leaving;
            fold_q <= fold;
            position_q <= position + 1;
            state_q <= state;
            case (state)
                IDLE: begin
                    position_q <= 0;
                    fold_q <= 0;
                    if (start) state_q <= stationary ? PRELOAD : STREAM;
                end
                PRELOAD: if (position + 1 == ROWS + MUTATE_PRELOAD) begin
                    state_q <= STREAM;
                    position_q <= 0;
                end
                STREAM: if (position + 1 == stream_cycles) begin
                    position_q <= 0;
                    if (overlap & !last) fold_q <= fold + 1;
                    else                 state_q <= DRAIN;
                end
                default: ;
            endcase
        end
    end
endmodule
