// One processing element of the systolic array.
//
// Operands a travel right with a select bit, operands b travel down, results d travel down through one
// register per PE. Two 32-bit words: `select` says which one is active, the other one is passing.
//
//  output stationary  The active word accumulates a*b. The passing word is a stage of the drain: it hands its value to
//                     the PE below and takes the one from above. When select flips, the PE's own result is passing.
//  operand stationary The active word is the weight of the stream that goes through; the passing one captures the
//                     b word whose tag is this row. d gains a*weight on its way down.
//
// Without overlap there is only word 0, active and passing at once: it drains whenever it does not accumulate.
module pe #(
    parameter logic [7:0] ROW = 0
) (
    input  logic        clk,
    input  logic        rst,
    input  logic        stationary,
    input  logic        overlap,
    input  logic        a_select,
    input  logic        a_valid,
    input  logic [7:0]  a,
    input  logic        b_valid,
    input  logic [7:0]  b_row,
    input  logic [7:0]  b,
    input  logic        d_valid,
    input  logic [31:0] d,
    output logic        right_select,
    output logic        right_valid,
    output logic [7:0]  right,
    output logic        below_valid,
    output logic [7:0]  below_row,
    output logic [7:0]  below,
    output logic        out_valid,
    output logic [31:0] out
);
    logic [31:0] word0, word1;
    logic        held0, held1;  // the word is a result on its way out

    wire active = overlap & a_select;
    wire passing = overlap & ~a_select;
    wire mac = a_valid & b_valid & ~stationary;
    wire [7:0]  weight = active ? word1[7:0] : word0[7:0];
    wire [31:0] passing_word = passing ? word1 : word0;
    wire        passing_held = passing ? held1 : held0;
    wire [7:0]  factor = stationary ? weight : b;
    wire [31:0] product = {{24{a[7]}}, a} * {{24{factor[7]}}, factor};
    wire        shift = ~stationary & (overlap | ~mac);
    wire        capture = stationary & b_valid & (b_row == ROW);

    always_ff @(posedge clk) begin
        if (rst) begin
            {word0, word1, held0, held1} <= '0;
            {right_select, right_valid, right} <= '0;
            {below_valid, below_row, below} <= '0;
            {out_valid, out} <= '0;
        end else begin
            {right_select, right_valid, right} <= {a_select, a_valid, a};
            {below_valid, below_row, below} <= {b_valid, b_row, b};
            if (mac) begin
                if (active) {held1, word1} <= {1'b1, word1 + product};
                else        {held0, word0} <= {1'b1, word0 + product};
            end
            if (shift) begin
                if (passing) {held1, word1} <= {d_valid, d};
                else         {held0, word0} <= {d_valid, d};
            end
            if (capture) begin
                if (passing) word1 <= {{24{b[7]}}, b};
                else         word0 <= {{24{b[7]}}, b};
            end
            if (stationary) {out_valid, out} <= {d_valid, a_valid ? d + product : d};
            else            {out_valid, out} <= {shift & passing_held, passing_word};
        end
    end
endmodule
