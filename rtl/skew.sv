// A delay line of DEPTH registers: what gives row r and column c their r and c cycles of skew.
module skew #(
    parameter int DEPTH = 1,
    parameter int WIDTH = 1
) (
    input  logic             clk,
    input  logic             rst,
    input  logic [WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);
    generate
        if (DEPTH == 0) begin : g_wire
            assign out = in;
            wire unused = &{clk, rst};
        end else begin : g_line
            logic [DEPTH*WIDTH-1:0] stages;
            always_ff @(posedge clk) begin
                if (rst) stages <= '0;
                else     stages <= (DEPTH*WIDTH)'({stages, in});
            end
            assign out = stages[DEPTH*WIDTH-1 -: WIDTH];
        end
    endgenerate
endmodule
