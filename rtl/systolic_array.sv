// ROWS x COLS PEs with their input skew. All inputs are unskewed: one operand vector per cycle.
//
// a enters on the left (row r after r cycles), b and d_valid at the top (column c after c cycles). d_valid opens a partial
// sum per streamed vector in operand-stationary mode. Results appear in `out`, the registers below the last row.
module systolic_array #(
    parameter int ROWS = 4,
    parameter int COLS = 4,
    parameter int MUTATE_SKEW = 0  // 1: the last column's skew is one cycle too long
) (
    input  logic                  clk,
    input  logic                  rst,
    input  logic                  stationary,
    input  logic                  overlap,
    input  logic                  select,
    input  logic [ROWS-1:0]       a_valid,
    input  logic [ROWS*8-1:0]     a,
    input  logic [COLS-1:0]       b_valid,
    input  logic [7:0]            b_row,
    input  logic [COLS*8-1:0]     b,
    input  logic [COLS-1:0]       d_valid,
    output logic [COLS-1:0]       out_valid,
    output logic [COLS*32-1:0]    out
);
    wire [9:0]  right [0:ROWS-1][0:COLS];
    wire [16:0] below [0:ROWS][0:COLS-1];
    wire [32:0] down [0:ROWS][0:COLS-1];

    genvar r, c;
    generate
        for (r = 0; r < ROWS; r = r + 1) begin : g_left
            skew #(.DEPTH(r), .WIDTH(10)) line (
                .clk(clk), .rst(rst), .in({select, a_valid[r], a[r*8 +: 8]}), .out(right[r][0]));
        end
        for (c = 0; c < COLS; c = c + 1) begin : g_top
            localparam int DEPTH = (c == COLS - 1) ? c + MUTATE_SKEW : c;
            skew #(.DEPTH(DEPTH), .WIDTH(17)) line (
                .clk(clk), .rst(rst), .in({b_valid[c], b_row, b[c*8 +: 8]}), .out(below[0][c]));
            skew #(.DEPTH(c), .WIDTH(1)) partial (
                .clk(clk), .rst(rst), .in(d_valid[c]), .out(down[0][c][32]));
            assign down[0][c][31:0] = '0;
            assign {out_valid[c], out[c*32 +: 32]} = down[ROWS][c];
        end
        for (r = 0; r < ROWS; r = r + 1) begin : g_row
            for (c = 0; c < COLS; c = c + 1) begin : g_column
                pe #(.ROW(r)) cell_pe (
                    .clk(clk), .rst(rst), .stationary(stationary), .overlap(overlap),
                    .a_select(right[r][c][9]), .a_valid(right[r][c][8]), .a(right[r][c][7:0]),
                    .b_valid(below[r][c][16]), .b_row(below[r][c][15:8]), .b(below[r][c][7:0]),
                    .d_valid(down[r][c][32]), .d(down[r][c][31:0]),
                    .right_select(right[r][c+1][9]), .right_valid(right[r][c+1][8]), .right(right[r][c+1][7:0]),
                    .below_valid(below[r+1][c][16]), .below_row(below[r+1][c][15:8]), .below(below[r+1][c][7:0]),
                    .out_valid(down[r+1][c][32]), .out(down[r+1][c][31:0]));
            end
        end
    endgenerate
endmodule
