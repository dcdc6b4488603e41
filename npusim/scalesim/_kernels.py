"""Replay of SCALE-Sim's read and write buffers: arrays and scalars only."""

from __future__ import annotations

import numpy as np

from npusim.jit import njit

# State of a read buffer: oldest set still there, set being filled, words in it, whether the first half has come in,
# first cycle with a request, words fetched, first cycle on the bus, first and last cycle of the present prefetch,
# whether SCALE-Sim would divide by zero.
OLDEST, NEWEST, WORDS, PRIMED, FIRST, FETCHED, BUS, BEGIN, END, FAULT = range(10)
HALF = 50
PRIMING_WORDS_PER_CYCLE = 10
LATENCY = 1


@njit
def request(state, stamp, items, address, cycle):
    """One word asked for in `cycle`; `stamp` is the set that last took each word."""
    if state[FIRST] < 0:
        state[FIRST] = cycle
    if stamp[address] >= state[OLDEST]:
        return
    stamp[address] = state[NEWEST]
    state[FETCHED] += 1
    state[WORDS] += 1
    if state[WORDS] < items:
        return
    state[NEWEST] += 1
    state[WORDS] = 0
    if state[NEWEST] < state[OLDEST] + HALF:
        return
    if state[PRIMED] == 0:
        state[PRIMED] = 1
        needed = -(-HALF * items // PRIMING_WORDS_PER_CYCLE)
        state[END] = state[FIRST] - 1 - LATENCY
        state[BUS] = state[END] - needed + 1 + LATENCY
    elif state[END] < state[BEGIN]:
        state[FAULT] = 1
    state[OLDEST] += HALF
    state[BEGIN] = state[END] + 1
    state[END] = cycle


@njit
def reads(lanes, stream, limits, words, row_folds, column_folds, width, on_rows, held, prefix, fold_cycles, items):
    """Words fetched, first and last cycle on the bus, and 1 where SCALE-Sim would divide by zero, as int64[4].

    lanes, stream int64 [3, size]: address, image row and image column, which add up; outside of `limits` is no word.
    `held` rows of the operand come in one piece, last row first, one per cycle; with 0 the operand streams with one
    cycle of skew per lane, after `prefix` cycles. `width` lanes take the blocks of row folds or of column folds.
    """
    state = np.zeros(10, np.int64)
    state[FIRST] = -1
    stamp = np.full(words, -1, np.int32)
    base = 0
    for column_fold in range(column_folds):
        for row_fold in range(row_folds):
            first = (row_fold if on_rows else column_fold) * width
            used = min(width, lanes.shape[1] - first)
            begin = row_fold * held
            length = min(held, stream.shape[1] - begin) if held > 0 else stream.shape[1]
            steps = held if held > 0 else length + used - 1
            for step in range(steps):
                # The held operand: all lanes of one row, the last row of the (filled-up) block first.
                low, high = 0, used
                if held == 0:
                    low, high = max(0, step - length + 1), min(used, step + 1)
                elif held - 1 - step >= length:
                    continue
                for lane in range(low, high):
                    a = first + lane
                    t = begin + held - 1 - step if held > 0 else step - lane
                    if lanes[1, a] + stream[1, t] < limits[0] and lanes[2, a] + stream[2, t] < limits[1]:
                        request(state, stamp, items, lanes[0, a] + stream[0, t], base + prefix + step)
            base += fold_cycles
    if state[PRIMED] == 0:
        sets = state[NEWEST] + (1 if state[WORDS] > 0 else 0)
        state[END] = -1 - LATENCY
        needed = -(-sets * items // PRIMING_WORDS_PER_CYCLE)
        state[BUS] = state[END] - needed + 1 + LATENCY
    elif state[END] < state[BEGIN]:
        state[FAULT] = 1
    return np.array([state[FETCHED], state[BUS], state[END] + LATENCY, state[FAULT]])


# State of the write buffer: lines written, first line not drained, words in the present line, free words, words
# drained, cycle in which the present drain ends, first and last cycle on the bus.
LINES, DRAINED, FILL, FREE, WRITTEN, BUSY, START, STOP = range(8)


@njit
def drain(state, lines, width, half, cycle):
    """Move half a buffer of lines to DRAM, one per cycle; a partly filled line counts in full unless it is the last."""
    end = min(state[DRAINED] + -(-half // width), state[LINES])
    count = end - state[DRAINED]
    words = count * width - (width - lines[end - 1])
    state[WRITTEN] += words
    state[FREE] += words
    state[DRAINED] = end
    state[BUSY] = cycle + count - 1
    if state[START] < 0:
        state[START] = cycle
    state[STOP] = max(state[STOP], state[BUSY])


@njit
def close_line(state, lines):
    if state[FILL] > 0:
        lines[state[LINES]] = state[FILL]
        state[LINES] += 1
        state[FILL] = 0


@njit
def write(state, lines, width, total, cycle):
    """One result; 1 when it had to wait for the buffer."""
    half = total - (total + 1) // 2
    state[FILL] += 1
    state[FREE] -= 1
    if state[FILL] == width:
        close_line(state, lines)
    if cycle < state[BUSY]:
        return 0 if state[FREE] > 0 else 1
    if state[FREE] < total - half:
        close_line(state, lines)
        drain(state, lines, width, half, cycle)
    return 0


@njit
def writes(outputs_stay, on_rows, on_columns, length, rows, cols, total):
    """Words written, first and last cycle on the bus, and 1 when the array had to wait, as int64[4].

    Results that stay leave their PEs row by row, the last row of the (filled-up) block first.
    """
    row_folds, column_folds = -(-on_rows // rows), -(-on_columns // cols)
    results = on_rows * on_columns if outputs_stay else row_folds * length * on_columns
    # Every drain may close a line early; it moves half a buffer.
    lines = np.zeros(results // cols + 2 * (results // max(1, total // 2)) + row_folds * column_folds + 16, np.int64)
    state = np.zeros(8, np.int64)
    state[FREE] = total
    state[START] = -1
    base, waits = 0, 0
    for column_fold in range(column_folds):
        used_columns = min(cols, on_columns - column_fold * cols)
        for row_fold in range(row_folds):
            used_rows = min(rows, on_rows - row_fold * rows)
            count = used_rows if outputs_stay else length
            prefix = length - 1 + rows - used_rows if outputs_stay else 2 * rows - 1
            for step in range(count + used_columns - 1):
                for _ in range(max(0, step - count + 1), min(used_columns, step + 1)):
                    waits += write(state, lines, cols, total, base + prefix + step)
            base += length + rows + cols - 2 if outputs_stay else length + 2 * rows + cols - 2
    close_line(state, lines)
    cycle = base - 1
    while state[DRAINED] < state[LINES]:
        drain(state, lines, cols, total - (total + 1) // 2, cycle)
        cycle = state[BUSY] + 1
    return np.array([state[WRITTEN], state[START], state[STOP], 1 if waits > 0 else 0])
