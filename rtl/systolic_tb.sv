// Runs points (tiles) from a file through decoder, sequencer and systolic array; one RESULT line per point.
//
// Point file, decimal numbers: point count, then per point
//   id, stationary, overlap, mode, K, N, T, live terms, taps, live term list,
//   A[K][T], B[N][T] (output stationary) or B[N][K] (operand stationary), mask[K][N],
//   golden [K][N] (output stationary, over the live terms) or [T][N] (operand stationary)
// RESULT id cycles a_reads b_reads writes errors decode_cycles
//
// The bench is the buffers: it answers reads in the same cycle, checks and counts what leaves. Inputs change at the
// falling edge, between the rising edges at which everything else happens.
`timescale 1ns / 1ns
// 32-bit integers index small memories.
// verilator lint_off UNUSEDSIGNAL
module systolic_tb #(
    parameter int ROWS = 4,
    parameter int COLS = 4,
    parameter int MUTATION = 0
);
    localparam int WORDS = 65536;
    localparam int INDEX_BITS = 12;

    logic clk = 0, decode_clk = 0, rst = 1, start = 0, decode_start = 0;
    logic stationary = 0, overlap = 0;
    logic [1:0]  mode = 0;
    integer k_size = 1, n_size = 1, t_size = 1, live_terms = 1, taps = 1;

    byte    a_buffer [0:WORDS-1];
    byte    b_buffer [0:WORDS-1];
    bit     mask [0:WORDS-1];
    integer golden [0:WORDS-1];
    integer result [0:WORDS-1];
    bit     written [0:WORDS-1];
    integer term_list [0:WORDS-1];

    // decoder
    wire        decoded;
    wire [31:0] folds, mask_row, mask_column, fold_rows, fold_columns;
    wire [ROWS*32-1:0] row_index;
    wire [COLS*32-1:0] column_index;
    logic [COLS-1:0] mask_word = 0;
    logic [31:0] lookup = 0;
    fold_decoder #(.ROWS(ROWS), .COLS(COLS), .INDEX_BITS(INDEX_BITS), .MUTATE_PACK(MUTATION == 4 ? 1 : 0)) decoder (
        .clk(decode_clk), .rst(rst), .start(decode_start), .mode(mode), .rows(k_size), .columns(n_size), .taps(taps),
        .done(decoded), .folds(folds), .mask_row(mask_row), .mask_column(mask_column), .mask_word(mask_word),
        .fold(lookup[INDEX_BITS-1:0]), .fold_rows(fold_rows), .fold_columns(fold_columns),
        .row_index(row_index), .column_index(column_index));

    // sequencer and array
    wire        busy, select, stream_valid, preload_valid;
    wire [31:0] fold, term, preload_fold, preload_row;
    logic [31:0] results = 0;
    logic [31:0] leaving;
    fold_sequencer #(
        .ROWS(ROWS), .MUTATE_INTERVAL(MUTATION == 1 ? 1 : 0), .MUTATE_LENGTH(MUTATION == 2 ? 1 : 0),
        .MUTATE_PRELOAD(MUTATION == 5 ? 1 : 0)
    ) sequencer (
        .clk(clk), .rst(rst), .start(start), .stationary(stationary), .overlap(overlap), .folds(folds),
        .length(live_terms), .results(results), .leaving(leaving), .busy(busy), .select(select),
        .stream_valid(stream_valid), .fold(fold), .term(term), .preload_valid(preload_valid),
        .preload_fold(preload_fold), .preload_row(preload_row));

    logic [ROWS-1:0] a_valid = 0;
    logic [ROWS*8-1:0] a = 0;
    logic [COLS-1:0] b_valid = 0, d_valid = 0;
    logic [COLS*8-1:0] b = 0;
    logic select_in = 0;
    wire [COLS-1:0] out_valid;
    wire [COLS*32-1:0] out;
    systolic_array #(.ROWS(ROWS), .COLS(COLS), .MUTATE_SKEW(MUTATION == 3 ? 1 : 0)) array (
        .clk(clk), .rst(rst), .stationary(stationary), .overlap(overlap), .select(select_in),
        .a_valid(a_valid), .a(a), .b_valid(b_valid), .b_row(preload_row[7:0]), .b(b), .d_valid(d_valid),
        .out_valid(out_valid), .out(out));

    integer i, lane;
    always @(out_valid) begin
        leaving = 0;
        for (i = 0; i < COLS; i = i + 1) leaving = leaving + {31'b0, out_valid[i]};
    end

    integer a_reads, b_reads, writes, errors, cycles, decode_cycles;

    // Per column of the array: which fold's results leave now, and how many of them have left.
    integer leaving_fold [0:COLS-1];
    integer left [0:COLS-1];

    task automatic feed;
        integer address;
        a_valid = 0; b_valid = 0; d_valid = 0; a = 0; b = 0;
        select_in = select;
        lookup = fold;
        #1 results = fold_columns * (stationary ? live_terms : fold_rows);
        if (stream_valid) begin
            for (lane = 0; lane < ROWS; lane = lane + 1)
                if (lane < fold_rows) begin
                    a_valid[lane] = 1;
                    a[lane*8 +: 8] = a_buffer[row_index[lane*32 +: 32] * t_size + term_list[term]];
                    a_reads = a_reads + 1;
                end
            for (lane = 0; lane < COLS; lane = lane + 1)
                if (lane < fold_columns) begin
                    d_valid[lane] = stationary;
                    if (!stationary) begin
                        b_valid[lane] = 1;
                        b[lane*8 +: 8] = b_buffer[column_index[lane*32 +: 32] * t_size + term_list[term]];
                        b_reads = b_reads + 1;
                    end
                end
        end
        if (preload_valid) begin
            lookup = preload_fold;
            #1 for (lane = 0; lane < COLS; lane = lane + 1)
                if (lane < fold_columns && preload_row < fold_rows) begin
                    address = column_index[lane*32 +: 32] * k_size + row_index[preload_row*32 +: 32];
                    b_valid[lane] = 1;
                    b[lane*8 +: 8] = b_buffer[address];
                    b_reads = b_reads + 1;
                end
        end
    endtask

    // One result leaves column `lane`: in output-stationary folds the last row first.
    task automatic collect;
        integer address;
        bit found;
        integer value;
        found = 0;
        while (!found && leaving_fold[lane] < folds) begin
            lookup = leaving_fold[lane];
            #1;
            if (lane < fold_columns && left[lane] < (stationary ? live_terms : fold_rows)) found = 1;
            else begin
                leaving_fold[lane] = leaving_fold[lane] + 1;
                left[lane] = 0;
            end
        end
        value = out[lane*32 +: 32];
        if (!found || (^value) === 1'bx) errors = errors + 1;
        else if (stationary) begin
            address = left[lane] * n_size + column_index[lane*32 +: 32];
            result[address] = result[address] + value;
            written[address] = 1;
            writes = writes + 1;
        end else begin
            i = fold_rows - 1 - left[lane];
            address = row_index[i*32 +: 32] * n_size + column_index[lane*32 +: 32];
            if (mask[address]) begin
                if (written[address]) errors = errors + 1;
                result[address] = value;
                written[address] = 1;
                writes = writes + 1;
            end
        end
        left[lane] = left[lane] + 1;
    endtask

    integer file, status, points, point, id, words;
    reg [8*256-1:0] name;

    task automatic check(input integer size);
        integer at;
        for (at = 0; at < size; at = at + 1) begin
            if (written[at] !== (stationary || mask[at])) errors = errors + 1;
            if (written[at] && result[at] !== golden[at]) errors = errors + 1;
        end
    endtask

    task automatic read_point;
        integer at, value;
        status = $fscanf(file, "%d %d %d %d %d %d %d %d %d", id, stationary, overlap, mode, k_size, n_size, t_size,
                         live_terms, taps);
        for (at = 0; at < live_terms; at = at + 1) begin
            status = $fscanf(file, "%d", value);
            term_list[at] = value;
        end
        for (at = 0; at < k_size * t_size; at = at + 1) begin
            status = $fscanf(file, "%d", value);
            a_buffer[at] = value[7:0];
        end
        words = n_size * (stationary ? k_size : t_size);
        for (at = 0; at < words; at = at + 1) begin
            status = $fscanf(file, "%d", value);
            b_buffer[at] = value[7:0];
        end
        for (at = 0; at < k_size * n_size; at = at + 1) begin
            status = $fscanf(file, "%d", value);
            mask[at] = value[0];
        end
        words = n_size * (stationary ? t_size : k_size);
        for (at = 0; at < words; at = at + 1) begin
            status = $fscanf(file, "%d", value);
            golden[at] = value;
            result[at] = 0;
            written[at] = 0;
        end
    endtask

    task automatic reset;
        a_valid = 0; b_valid = 0; d_valid = 0; select_in = 0; start = 0; decode_start = 0;
        rst = 1;
        #5 clk = 1; decode_clk = 1;
        #5 clk = 0; decode_clk = 0;
        rst = 0;
        a_reads = 0; b_reads = 0; writes = 0; errors = 0; cycles = 0; decode_cycles = 0;
        for (lane = 0; lane < COLS; lane = lane + 1) begin
            leaving_fold[lane] = 0;
            left[lane] = 0;
        end
    endtask

    task automatic decode;
        decode_start = 1;
        while (!decoded) begin
            for (lane = 0; lane < COLS; lane = lane + 1)
                mask_word[lane] = (mask_column + lane < n_size) ? mask[mask_row * n_size + mask_column + lane] : 1'b0;
            #5 decode_clk = 1;
            #5 decode_clk = 0;
            decode_cycles = decode_cycles + 1;
        end
        if (folds > (1 << INDEX_BITS)) errors = errors + 1;
    endtask

    // A sequencer that waits for a result that never leaves is an error, not an endless run.
    task automatic run;
        integer silent;
        silent = 0;
        start = 1;
        #5 clk = 1;
        #5 clk = 0;
        start = 0;
        while (busy && silent < 500) begin
            feed;
            cycles = cycles + 1;
            silent = (out_valid == 0) ? silent + 1 : 0;
            #5 clk = 1;
            #5 clk = 0;
            for (lane = 0; lane < COLS; lane = lane + 1) if (out_valid[lane]) collect;
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
            if (folds > 0) run;
            check(n_size * (stationary ? t_size : k_size));
            $display("RESULT %0d %0d %0d %0d %0d %0d %0d", id, cycles, a_reads, b_reads, writes, errors, decode_cycles);
        end
        $finish;
    end
endmodule
