// LANES PEs (a power of two) and their adder tree: one partial dW element per cycle.
//
// An issued element (register = output channel of the block, batch = where its column is listed) leaves as a sum after
// 2 + log2(LANES) clock edges: operand registers, multiplier, one edge per level of the tree. Lanes from `lanes` on
// hold no term; an adder with fewer than two live operands passes and does not count.
module reduction_group #(
    parameter int LANES = 4,
    parameter int REGISTERS = 8,
    parameter int A_SLOTS = 1,
    parameter int B_SLOTS = 1
) (
    input  logic                 clk,
    input  logic                 rst,
    input  logic [A_SLOTS-1:0]   a_valid,
    input  logic [A_SLOTS*8-1:0] a_lane,
    input  logic [A_SLOTS*8-1:0] a_register,
    input  logic [A_SLOTS*8-1:0] a,
    input  logic [B_SLOTS-1:0]   b_valid,
    input  logic [B_SLOTS*8-1:0] b_lane,
    input  logic [B_SLOTS*8-1:0] b,
    input  logic                 load_bank,
    input  logic [31:0]          lanes,
    input  logic                 issue_valid,
    input  logic [7:0]           issue_register,
    input  logic [15:0]          issue_batch,
    output logic                 moving,        // an element is on its way and not yet in `sum`
    output logic                 sum_valid,
    output logic [7:0]           sum_register,
    output logic [15:0]          sum_batch,
    output logic [31:0]          sum,
    output logic [LANES-1:0]     multiplying,   // PEs and adders at work in this cycle
    output logic [LANES-1:0]     adding
);
    localparam int LEVELS = $clog2(LANES);
    localparam int STAGES = LEVELS + 2;

    logic [STAGES-1:0]    valid;
    logic [STAGES*24-1:0] tags;
    always_ff @(posedge clk) begin
        if (rst) {valid, tags} <= '0;
        else begin
            valid <= STAGES'({valid, issue_valid});
            tags <= (STAGES*24)'({tags, issue_register, issue_batch});
        end
    end
    assign moving = |valid[STAGES-2:0];
    assign sum_valid = valid[STAGES-1];
    assign {sum_register, sum_batch} = tags[STAGES*24-1 -: 24];

    // Node LANES + l is lane l's product; node n adds nodes 2n and 2n + 1; node 1 is the sum.
    wire [32:0] node [1:2*LANES-1];
    genvar n;
    generate
        for (n = 0; n < LANES; n = n + 1) begin : g_lane
            reduction_pe #(.LANE(n), .REGISTERS(REGISTERS), .A_SLOTS(A_SLOTS), .B_SLOTS(B_SLOTS)) pe (
                .clk(clk), .rst(rst), .a_valid(a_valid), .a_lane(a_lane), .a_register(a_register), .a(a),
                .b_valid(b_valid), .b_lane(b_lane), .b(b), .load_bank(load_bank),
                .read_valid(issue_valid & (n < lanes)), .read_register(issue_register),
                .product_valid(node[LANES+n][32]), .product(node[LANES+n][31:0]));
            assign multiplying[n] = node[LANES+n][32];
        end
        for (n = 1; n < LANES; n = n + 1) begin : g_adder
            wire [31:0] left = node[2*n][32] ? node[2*n][31:0] : '0;
            wire [31:0] right = node[2*n+1][32] ? node[2*n+1][31:0] : '0;
            logic [32:0] total;
            always_ff @(posedge clk) begin
                if (rst) total <= '0;
                else     total <= {node[2*n][32] | node[2*n+1][32], 32'(left + right)};
            end
            assign node[n] = total;
            assign adding[n] = node[2*n][32] & node[2*n+1][32];
        end
    endgenerate
    assign adding[0] = 1'b0;
    assign sum = node[1][31:0];
endmodule
