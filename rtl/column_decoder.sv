// Turns the mask of a tile into the lists that the reduction-spatial array walks.
//
// Live rows are gathered and cut into blocks of REGISTERS; per block, every column with a selected element is listed
// with its mask word (bit f = the block's f-th row). Reads WIDTH mask bits per cycle: the tile once for the live rows,
// then every block's rows. This happens while the mask arrives, before the tile starts.
module column_decoder #(
    parameter int GROUPS = 2,
    parameter int REGISTERS = 8,
    parameter int WIDTH = 8,
    parameter int INDEX_BITS = 12
) (
    input  logic                        clk,
    input  logic                        rst,
    input  logic                        start,
    input  logic [31:0]                 rows,
    input  logic [31:0]                 columns,
    output logic                        done,
    output logic [31:0]                 blocks,
    // the mask, read in the same cycle; bits beyond the last column are 0
    output logic [31:0]                 mask_row,
    output logic [31:0]                 mask_column,
    input  logic [WIDTH-1:0]            mask_bits,
    // the tables: a block and one of its batches in; a column of ~0 means that the group has none
    input  logic [INDEX_BITS-1:0]       block,
    input  logic [31:0]                 batch,
    output logic [31:0]                 block_rows,
    output logic [31:0]                 block_columns,
    output logic [REGISTERS*32-1:0]     row_index,
    output logic [GROUPS*32-1:0]        column_index,
    output logic [GROUPS*REGISTERS-1:0] mask_words
);
    localparam int ENTRIES = 1 << INDEX_BITS;
    localparam logic [2:0] IDLE = 0, ROWS_ = 1, COLLECT = 2, EMIT = 3, FINISHED = 4;

    logic [INDEX_BITS-1:0] row_list [0:ENTRIES-1];
    logic [INDEX_BITS-1:0] column_list [0:ENTRIES-1];
    logic [REGISTERS-1:0]  word_list [0:ENTRIES-1];
    logic [INDEX_BITS-1:0] column_start [0:ENTRIES-1];

    logic [2:0]  state;
    logic [31:0] row, column, lane, live_rows;
    logic [INDEX_BITS-1:0] listed, scanned_block;
    logic        any;
    logic [REGISTERS*WIDTH-1:0] collected;  // WIDTH columns of the block, REGISTERS bits each

    wire hit = |mask_bits;
    wire last_column = (column + WIDTH >= columns);
    wire [31:0] first_row = 32'(scanned_block) * REGISTERS;
    wire [31:0] scanned_rows = (live_rows - first_row < REGISTERS) ? live_rows - first_row : REGISTERS;
    wire [REGISTERS-1:0] word = collected[lane*REGISTERS +: REGISTERS];
    integer bit_;

    assign done = (state == FINISHED);
    assign mask_row = (state == ROWS_) ? row : 32'(row_list[INDEX_BITS'(first_row + row)]);
    assign mask_column = column;

    wire [31:0] first = 32'(block) * REGISTERS;
    assign block_rows = (live_rows - first < REGISTERS) ? live_rows - first : REGISTERS;
    assign block_columns = 32'(column_start[block + 1]) - 32'(column_start[block]);
    genvar n;
    generate
        for (n = 0; n < REGISTERS; n = n + 1) begin : g_row
            assign row_index[n*32 +: 32] = 32'(row_list[INDEX_BITS'(first + n)]);
        end
        for (n = 0; n < GROUPS; n = n + 1) begin : g_column
            wire [31:0] entry = batch * GROUPS + n;
            wire        present = (entry < block_columns);
            wire [INDEX_BITS-1:0] at = column_start[block] + INDEX_BITS'(entry);
            assign column_index[n*32 +: 32] = present ? 32'(column_list[at]) : '1;
            assign mask_words[n*REGISTERS +: REGISTERS] = present ? word_list[at] : '0;
        end
    endgenerate

    always_ff @(posedge clk) begin
        if (rst) begin
            state <= IDLE;
            {row, column, lane, live_rows, listed, scanned_block, any, collected, blocks} <= '0;
            column_start[0] <= 0;
        end else begin
            case (state)
                IDLE: if (start) state <= ROWS_;
                ROWS_: begin
                    column <= last_column ? 0 : column + WIDTH;
                    any <= !last_column & (any | hit);
                    if (last_column) begin
                        row <= row + 1;
                        if (any | hit) begin
                            row_list[live_rows[INDEX_BITS-1:0]] <= INDEX_BITS'(row);
                            live_rows <= live_rows + 1;
                        end
                        if (row + 1 == rows) begin
                            row <= 0;
                            state <= (live_rows != 0 | any | hit) ? COLLECT : FINISHED;
                        end
                    end
                end
                COLLECT: begin
                    for (bit_ = 0; bit_ < WIDTH; bit_ = bit_ + 1)
                        collected[bit_*REGISTERS + row] <= mask_bits[bit_];
                    row <= row + 1;
                    if (row + 1 == scanned_rows) begin
                        row <= 0;
                        state <= EMIT;
                    end
                end
                EMIT: begin
                    if (word != 0) begin
                        column_list[listed] <= INDEX_BITS'(column + lane);
                        word_list[listed] <= word;
                        listed <= listed + 1;
                    end
                    lane <= lane + 1;
                    if (lane + 1 == WIDTH) begin
                        lane <= 0;
                        collected <= '0;
                        column <= last_column ? 0 : column + WIDTH;
                        state <= COLLECT;
                        if (last_column) begin
                            column_start[scanned_block + 1] <= listed + ((word != 0) ? 1 : 0);
                            scanned_block <= scanned_block + 1;
                            blocks <= blocks + 1;
                            if (first_row + REGISTERS >= live_rows) state <= FINISHED;
                        end
                    end
                end
                default: ;
            endcase
        end
    end
endmodule
