// One processing element of the reduction-spatial array: it holds one term of the T-reduction.
//
// A register file of dY words (one per output channel of the block), two X registers (one is loaded while the other
// is used), operand registers, and a multiplier of one cycle. Words arrive on broadcast slots and are taken by lane number.
module reduction_pe #(
    parameter logic [7:0] LANE = 0,
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
    input  logic                 read_valid,
    input  logic [7:0]           read_register,
    output logic                 product_valid,
    output logic [31:0]          product
);
    logic [REGISTERS*8-1:0] words;
    logic [7:0] x0, x1, x_operand, dy_operand;
    logic operand_valid;
    integer slot;

    always_ff @(posedge clk) begin
        if (rst) begin
            {words, x0, x1, x_operand, dy_operand} <= '0;
            {operand_valid, product_valid, product} <= '0;
        end else begin
            if (a_valid != 0) for (slot = 0; slot < A_SLOTS; slot = slot + 1)
                if (a_valid[slot] & a_lane[slot*8 +: 8] == LANE)
                    words[a_register[slot*8 +: 8]*8 +: 8] <= a[slot*8 +: 8];
            if (b_valid != 0) for (slot = 0; slot < B_SLOTS; slot = slot + 1)
                if (b_valid[slot] & b_lane[slot*8 +: 8] == LANE) begin
                    if (load_bank) x1 <= b[slot*8 +: 8];
                    else           x0 <= b[slot*8 +: 8];
                end
            operand_valid <= read_valid;
            dy_operand <= words[read_register*8 +: 8];
            x_operand <= load_bank ? x0 : x1;
            product_valid <= operand_valid;
            product <= {{24{dy_operand[7]}}, dy_operand} * {{24{x_operand[7]}}, x_operand};
        end
    end
endmodule
