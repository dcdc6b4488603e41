// GROUPS adder-tree groups on the same broadcast slots: port A slots go to every group, port B slots to one each.
module reduction_array #(
    parameter int GROUPS = 2,
    parameter int LANES = 4,
    parameter int REGISTERS = 8,
    parameter int A_SLOTS = 1,
    parameter int B_SLOTS = 1
) (
    input  logic                    clk,
    input  logic                    rst,
    input  logic [A_SLOTS-1:0]      a_valid,
    input  logic [A_SLOTS*8-1:0]    a_lane,
    input  logic [A_SLOTS*8-1:0]    a_register,
    input  logic [A_SLOTS*8-1:0]    a,
    input  logic [GROUPS*B_SLOTS-1:0] b_valid,
    input  logic [B_SLOTS*8-1:0]    b_lane,
    input  logic [B_SLOTS*8-1:0]    b,
    input  logic                    load_bank,
    input  logic [31:0]             lanes,
    input  logic [GROUPS-1:0]       issue_valid,
    input  logic [GROUPS*8-1:0]     issue_register,
    input  logic [15:0]             issue_batch,
    output logic                    moving,
    output logic [GROUPS-1:0]       sum_valid,
    output logic [GROUPS*8-1:0]     sum_register,
    output logic [GROUPS*16-1:0]    sum_batch,
    output logic [GROUPS*32-1:0]    sum,
    output logic [GROUPS*LANES-1:0] multiplying,
    output logic [GROUPS*LANES-1:0] adding
);
    wire [GROUPS-1:0] group_moving;
    assign moving = |group_moving;
    genvar g;
    generate
        for (g = 0; g < GROUPS; g = g + 1) begin : g_group
            reduction_group #(.LANES(LANES), .REGISTERS(REGISTERS), .A_SLOTS(A_SLOTS), .B_SLOTS(B_SLOTS)) group (
                .clk(clk), .rst(rst), .a_valid(a_valid), .a_lane(a_lane), .a_register(a_register), .a(a),
                .b_valid(b_valid[g*B_SLOTS +: B_SLOTS]), .b_lane(b_lane), .b(b), .load_bank(load_bank),
                .lanes(lanes), .issue_valid(issue_valid[g]), .issue_register(issue_register[g*8 +: 8]),
                .issue_batch(issue_batch), .moving(group_moving[g]), .sum_valid(sum_valid[g]),
                .sum_register(sum_register[g*8 +: 8]), .sum_batch(sum_batch[g*16 +: 16]), .sum(sum[g*32 +: 32]),
                .multiplying(multiplying[g*LANES +: LANES]), .adding(adding[g*LANES +: LANES]));
        end
    endgenerate
endmodule
