// Turns the mask of a tile into its list of folds, for each selective mode of the output-stationary array.
//
// Reads the mask one word of COLS bits at a time and writes three tables: folds (where its rows and columns start, and
// how many they are), gathered rows, gathered columns. This happens while the mask arrives, before the tile starts.
//
//  DENSE     every block of ROWS x COLS
//  SKIP      only blocks with a selected element
//  ROWS_     per block of columns: the rows with a selected element there, packed
//  CHANNELS  per block of rows: the channels (`taps` columns each) with a selected element there, packed
module fold_decoder #(
    parameter int ROWS = 4,
    parameter int COLS = 4,
    parameter int INDEX_BITS = 12,  // of the tables
    parameter int MAX_COLUMNS = 1024,
    parameter int MUTATE_PACK = 0  // 1: packs one row or column too few into a full fold
) (
    input  logic            clk,
    input  logic            rst,
    input  logic            start,
    input  logic [1:0]      mode,
    input  logic [31:0]     rows,
    input  logic [31:0]     columns,
    input  logic [31:0]     taps,
    output logic            done,
    output logic [31:0]     folds,
    // the mask, read in the same cycle; bits beyond the last column are 0
    output logic [31:0]     mask_row,
    output logic [31:0]     mask_column,
    input  logic [COLS-1:0] mask_word,
    // the tables: a fold in; its live array rows and columns and which mask row or column each of them holds out
    input  logic [INDEX_BITS-1:0] fold,
    output logic [31:0]        fold_rows,
    output logic [31:0]        fold_columns,
    output logic [ROWS*32-1:0] row_index,
    output logic [COLS*32-1:0] column_index
);
    localparam int ENTRIES = 1 << INDEX_BITS;
    localparam logic [1:0] DENSE = 0, SKIP = 1, ROWS_ = 2, CHANNELS = 3;
    localparam logic [2:0] IDLE = 0, SCAN = 1, GATHER = 2, PACK = 3, FINISHED = 4;
    localparam int PACK_ROWS = (ROWS > 1) ? ROWS - MUTATE_PACK : ROWS;
    localparam int PACK_COLS = (COLS > 1) ? COLS - MUTATE_PACK : COLS;

    logic [31:0] row_start [0:ENTRIES-1];
    logic [31:0] row_count [0:ENTRIES-1];
    logic [31:0] column_start [0:ENTRIES-1];
    logic [31:0] column_count [0:ENTRIES-1];
    logic [31:0] row_list [0:ENTRIES-1];
    logic [31:0] column_list [0:ENTRIES-1];

    logic [2:0]  state;
    logic [31:0] row, column;          // block being scanned
    logic [31:0] offset;               // row inside the block of rows, or column of the gather
    logic [31:0] gathered, packed_;    // entries of the gathered list: written, and already in folds
    logic        any;
    logic [MAX_COLUMNS-1:0] any_column;

    // With ROWS_ the scan runs down all rows of the tile, else down one block of rows.
    wire [31:0] block_rows = (mode == ROWS_) ? rows : (rows - row < ROWS) ? rows - row : ROWS;
    wire [31:0] block_columns = (columns - column < COLS) ? columns - column : COLS;
    wire        last_offset = (offset + 1 == block_rows);
    wire        hit = |mask_word;
    wire        last_column = (column + COLS >= columns);
    wire        last_row = (row + block_rows >= rows);
    wire [31:0] pack = (mode == ROWS_) ? PACK_ROWS : PACK_COLS;
    wire [31:0] left = gathered - packed_;
    wire [31:0] next_packed = (left < pack) ? left : pack;
    wire        channel_live = |(MAX_COLUMNS'(any_column >> offset) & ((MAX_COLUMNS'(1) << taps) - 1));
    wire        channel_start = (offset % taps == 0);

    assign done = (state == FINISHED);
    assign mask_row = row + offset;
    assign mask_column = column;
    assign fold_rows = row_count[fold];
    assign fold_columns = column_count[fold];
    genvar lane;
    generate
        for (lane = 0; lane < ROWS; lane = lane + 1) begin : g_row_index
            wire [31:0] entry = row_start[fold] + lane;
            assign row_index[lane*32 +: 32] = (mode == ROWS_) ? row_list[entry] : entry;
        end
        for (lane = 0; lane < COLS; lane = lane + 1) begin : g_column_index
            wire [31:0] entry = column_start[fold] + lane;
            assign column_index[lane*32 +: 32] = (mode == CHANNELS) ? column_list[entry] : entry;
        end
    endgenerate

    always_ff @(posedge clk) begin
        if (rst) begin
            state <= IDLE;
            {row, column, offset, gathered, packed_, folds} <= '0;
            any <= 0;
            any_column <= '0;
        end else begin
            case (state)
                IDLE: if (start) state <= SCAN;
                SCAN: begin
                    offset <= last_offset ? 0 : offset + 1;
                    any <= !last_offset & (any | hit);
                    if (mode == CHANNELS)
                        any_column <= any_column | (MAX_COLUMNS'(mask_word) << column);
                    if (mode == ROWS_ & hit) begin
                        row_list[gathered] <= offset;
                        gathered <= gathered + 1;
                    end
                    if (last_offset & (mode == DENSE | (mode == SKIP & (any | hit)))) begin
                        row_start[folds] <= row;
                        row_count[folds] <= block_rows;
                        column_start[folds] <= column;
                        column_count[folds] <= block_columns;
                        folds <= folds + 1;
                    end
                    if (last_offset) begin
                        if (mode == ROWS_) state <= PACK;
                        else if (!last_column) column <= column + COLS;
                        else if (mode == CHANNELS) state <= GATHER;
                        else if (last_row) state <= FINISHED;
                        else begin
                            column <= 0;
                            row <= row + ROWS;
                        end
                    end
                end
                GATHER:  // only with CHANNELS: a dead channel takes one cycle, a live one a cycle per tap
                    if (offset >= columns) begin
                        offset <= 0;
                        state <= PACK;
                    end else if (channel_start & !channel_live) offset <= offset + taps;
                    else begin
                        column_list[gathered] <= offset;
                        gathered <= gathered + 1;
                        offset <= offset + 1;
                    end
                PACK:
                    if (left != 0) begin
                        row_start[folds] <= (mode == ROWS_) ? packed_ : row;
                        row_count[folds] <= (mode == ROWS_) ? next_packed : block_rows;
                        column_start[folds] <= (mode == ROWS_) ? column : packed_;
                        column_count[folds] <= (mode == ROWS_) ? block_columns : next_packed;
                        folds <= folds + 1;
                        packed_ <= packed_ + next_packed;
                    end else begin
                        any_column <= '0;
                        state <= SCAN;
                        if (mode == ROWS_) column <= column + COLS;
                        else begin
                            column <= 0;
                            row <= row + ROWS;
                        end
                        if (mode == ROWS_ ? last_column : last_row) state <= FINISHED;
                    end
                default: ;
            endcase
        end
    end
endmodule
