"""Commands of one Gemmini loop instruction, as rows of the command streams of `gemmini_station_kernels`."""

from __future__ import annotations

from npusim.jit import njit
from npusim.validate.gemmini_station_kernels import ACCUMULATOR, EX, LD, PARTS, ST

# Columns of a row of loops for `matmul`: blocks and unpadded sizes of the tile, addresses and strides in bytes.
# C_ADDRESS < 0: sums stay in the accumulator. HALF: which half of the scratchpad; BANK: which half of the accumulator.
TI, TJ, TK, M, N, K, A_ADDRESS, B_ADDRESS, C_ADDRESS, A_STRIDE, B_STRIDE, C_STRIDE, ACCUMULATE = range(13)
HALF, BANK, C_BYTES, MATMUL_COLUMNS = range(13, 17)
# Columns of a row of loops for `conv`. Sizes of the tile: output pixels and channels, taps, input channels, loaded
# pixels (LOAD_ROWS, LOAD_COLS, without padding) and pixels in the scratchpad (I_ROWS, I_COLS, with padding UP, LEFT).
(O_ROWS, O_COLS, O_CHS, K_ROWS, K_COLS, K_CHS, STRIDE, LOAD_ROWS, LOAD_COLS, UP, LEFT, I_ROWS, I_COLS) = range(13)
(IN_ADDRESS, IN_PIXEL, IN_ROW, W_ADDRESS, W_CHANNEL, W_TAP, OUT_ADDRESS, OUT_PIXEL, OUT_ROW) = range(13, 22)
BIAS, PIXELS, C_HALF, C_BANK, BIAS_ADDRESS, CONV_COLUMNS = range(22, 28)
SPAD_ROWS = 16384
ACC_ROWS = 1024
WIDE = 4


@njit
def matmul(loop, m, part):
    """LOOP_WS: moves A and B in, multiplies k-outermost, moves 32-bit sums out of the last k."""
    ti, tj, tk = loop[TI], loop[TJ], loop[TK]
    a_base = loop[HALF] * (SPAD_ROWS // 2)
    b_base = (loop[HALF] + 1) * (SPAD_ROWS // 2) - tk * tj * 16
    c_base = ACCUMULATOR + loop[BANK] * (ACC_ROWS // 2)
    ld0 = part * (m.ld.shape[0] // PARTS)
    ex0 = part * (m.ex.shape[0] // PARTS)
    st0 = part * (m.st.shape[0] // PARTS)
    loads = 0
    wide_k, wide_j = min(tk, WIDE), min(tj, WIDE)
    i = k = b_k = b_j = 0
    a_left, b_left = True, True
    while a_left or b_left:
        take_b = b_left and (not a_left or k > b_k or (b_k == 0 and b_j == 0))
        row = m.ld[ld0 + loads]
        if take_b:
            blocks = min(wide_j, tj - b_j)
            row[0] = b_base + (b_k * tj + b_j) * 16
            row[1] = row[0] + blocks * 16
            row[2] = 16
            row[3] = min(blocks * 16, loop[N] - b_j * 16)
            row[4] = loop[B_ADDRESS] + b_k * 16 * loop[B_STRIDE] + b_j * 16
            row[5] = loop[B_STRIDE]
            b_j += wide_j
            if b_j >= tj:
                b_j = 0
                b_k += 1
                b_left = b_k < tk
        else:
            blocks = min(wide_k, tk - k)
            row[2] = min(16, loop[M] - i * 16)
            row[0] = a_base + (i * tk + k) * 16
            row[1] = row[0] + (blocks - 1) * 16 + row[2]
            row[3] = min(blocks * 16, loop[K] - k * 16)
            row[4] = loop[A_ADDRESS] + i * 16 * loop[A_STRIDE] + k * 16
            row[5] = loop[A_STRIDE]
            i += 1
            if i == ti:
                i = 0
                k += wide_k
                a_left = k < tk
        row[6], row[7] = 0, 16
        loads += 1
    blocks = 0
    for k in range(tk):
        for j in range(tj):
            for i in range(ti):
                row = m.ex[ex0 + blocks]
                b = b_base + (k * tj + j) * 16
                row[0], row[1] = (b, b + min(16, loop[K] - k * 16)) if i == 0 else (-1, -1)
                row[7] = min(16, loop[M] - i * 16)
                row[2] = c_base + (i * tj + j) * 16
                row[3] = row[2] + row[7]
                row[4] = 1 if loop[ACCUMULATE] or k > 0 else 0
                row[5] = a_base + (i * tk + k) * 16
                row[6] = row[5] + row[7]
                row[8] = needed(m.ld, ld0, loads, row)
                blocks += 1
    stores = 0
    wide = 1 if loop[C_BYTES] == 4 else min(tj, WIDE)
    if loop[C_ADDRESS] >= 0:
        for j in range(0, tj, wide):
            for i in range(ti):
                row = m.st[st0 + stores]
                taken = min(wide, tj - j)
                row[2] = min(16, loop[M] - i * 16)
                row[0] = c_base + (i * tj + j) * 16
                row[1] = row[0] + (taken - 1) * 16 + row[2]
                row[3] = loop[C_BYTES] * min(16 * taken, loop[N] - j * 16)
                row[4] = loop[C_ADDRESS] + i * 16 * loop[C_STRIDE] + j * 16 * loop[C_BYTES]
                row[5] = loop[C_STRIDE]
                stores += 1
                row[6] = (tk - 1) * ti * tj + (j + taken - 1) * ti + i + 1
    m.sizes[part, LD] = loads
    m.sizes[part, EX] = 2 * blocks
    m.sizes[part, ST] = stores


@njit
def needed(ld, first, count, row):
    """How many loads must have been emitted before this block: all up to the last that brings one of its operands."""
    need = 0
    for n in range(count):
        lo, hi = ld[first + n, 0], ld[first + n, 1]
        if (lo < row[6] and row[5] < hi) or (row[0] >= 0 and lo < row[1] and row[0] < hi):
            need = n + 1
    return need


@njit
def conv(loop, m, part):
    """LOOP_CONV_WS: bias, weights and pixels in, taps and channels outermost, 8-bit results out.

    Compute is emitted once all loads have been, stores once all compute has been.
    """
    loads = conv_loads(loop, m, part * (m.ld.shape[0] // PARTS))
    blocks = conv_blocks(loop, m, part * (m.ex.shape[0] // PARTS), loads)
    st0 = part * (m.st.shape[0] // PARTS)
    c_base = ACCUMULATOR + loop[C_BANK] * (ACC_ROWS // 2)
    stores = 0
    if loop[OUT_ADDRESS] >= 0:
        for o_row in range(loop[O_ROWS]):
            for o_col in range(0, loop[O_COLS], 16):
                for o_ch in range(0, loop[O_CHS], 16):
                    row = m.st[st0 + stores]
                    row[2] = min(16, loop[O_COLS] - o_col)
                    row[0] = c_base + (o_ch // 16 * loop[O_ROWS] + o_row) * loop[O_COLS] + o_col
                    row[1] = row[0] + row[2]
                    row[3] = min(16, loop[O_CHS] - o_ch)
                    row[4] = loop[OUT_ADDRESS] + o_row * loop[OUT_ROW] + o_col * loop[OUT_PIXEL] + o_ch
                    row[5] = loop[OUT_PIXEL]
                    row[6] = blocks
                    stores += 1
    m.sizes[part, LD] = loads
    m.sizes[part, EX] = 2 * blocks
    m.sizes[part, ST] = stores


@njit
def conv_loads(loop, m, at):
    """Bias (one row, repeated for every pixel), weights, then pixels in pieces of 16 pixels and 64 channels."""
    first = at
    c_base = ACCUMULATOR + loop[C_BANK] * (ACC_ROWS // 2)
    a_base = loop[C_HALF] * (SPAD_ROWS // 2)
    taps = loop[K_ROWS] * loop[K_COLS]
    b_block = taps * loop[K_CHS]
    b_base = (loop[C_HALF] + 1) * (SPAD_ROWS // 2) - (loop[O_CHS] + 15) // 16 * b_block
    spad_stride = loop[I_ROWS] * loop[I_COLS]
    if loop[BIAS]:
        for o_row in range(loop[O_ROWS]):
            for o_col in range(0, loop[O_COLS], 16):
                for o_ch in range(0, loop[O_CHS], 16):
                    row = m.ld[at]
                    pixels = min(16, loop[O_COLS] - o_col)
                    row[0] = c_base + (o_ch // 16 * loop[O_ROWS] + o_row) * loop[O_COLS] + o_col
                    row[1] = row[0] + pixels
                    row[2], row[3] = 1, 4 * min(16, loop[O_CHS] - o_ch)
                    row[4], row[5] = loop[BIAS_ADDRESS] + 4 * o_ch, 0
                    row[6], row[7] = pixels - 1, 0
                    at += 1
    for o_ch in range(0, loop[O_CHS], 16 * WIDE):
        for tap in range(taps):
            for k_ch in range(0, loop[K_CHS], 16):
                row = m.ld[at]
                row[3] = min(16 * WIDE, loop[O_CHS] - o_ch)
                row[2] = min(16, loop[K_CHS] - k_ch)
                row[0] = b_base + o_ch // 16 * b_block + tap * loop[K_CHS] + k_ch
                row[1] = row[0] + (row[3] - 1) // 16 * b_block + row[2]
                row[4] = loop[W_ADDRESS] + tap * loop[W_TAP] + k_ch * loop[W_CHANNEL] + o_ch
                row[5] = loop[W_CHANNEL]
                row[6], row[7] = 0, b_block
                at += 1
    for i_row in range(loop[LOAD_ROWS]):
        for i_col in range(0, loop[LOAD_COLS], 16):
            for i_ch in range(0, loop[K_CHS], 16 * WIDE):
                row = m.ld[at]
                row[3] = min(16 * WIDE, loop[K_CHS] - i_ch)
                row[2] = min(16, loop[LOAD_COLS] - i_col)
                row[0] = a_base + i_ch // 16 * spad_stride + (i_row + loop[UP]) * loop[I_COLS] + i_col + loop[LEFT]
                row[1] = row[0] + (row[3] - 1) // 16 * spad_stride + row[2]
                row[4] = loop[IN_ADDRESS] + i_row * loop[IN_ROW] + i_col * loop[IN_PIXEL] + i_ch
                row[5] = loop[IN_PIXEL]
                row[6], row[7] = 0, spad_stride
                at += 1
    return at - first


@njit
def conv_blocks(loop, m, at, loads):
    """Blocks of 16 output pixels of a row, 16 output channels, 16 input channels and one tap (PIXELS taps at once)."""
    first = at
    c_base = ACCUMULATOR + loop[C_BANK] * (ACC_ROWS // 2)
    a_base = loop[C_HALF] * (SPAD_ROWS // 2)
    b_block = loop[K_ROWS] * loop[K_COLS] * loop[K_CHS]
    b_base = (loop[C_HALF] + 1) * (SPAD_ROWS // 2) - (loop[O_CHS] + 15) // 16 * b_block
    spad_stride = loop[I_ROWS] * loop[I_COLS]
    for o_ch in range(0, loop[O_CHS], 16):
        for k_row in range(loop[K_ROWS]):
            for k_col in range(0, loop[K_COLS], loop[PIXELS]):
                for k_ch in range(0, loop[K_CHS], 16):
                    b = b_base + o_ch // 16 * b_block + (k_row * loop[K_COLS] + k_col) * loop[K_CHS] + k_ch
                    for o_row in range(loop[O_ROWS]):
                        for o_col in range(0, loop[O_COLS], 16):
                            row = m.ex[at]
                            new = o_row == 0 and o_col == 0
                            row[0], row[1] = (b, b + min(16, loop[K_CHS] - k_ch)) if new else (-1, -1)
                            row[7] = min(16, loop[O_COLS] - o_col)
                            row[2] = c_base + (o_ch // 16 * loop[O_ROWS] + o_row) * loop[O_COLS] + o_col
                            row[3] = row[2] + row[7]
                            row[4] = 1
                            i_row, i_col = o_row * loop[STRIDE] + k_row, o_col * loop[STRIDE] + k_col
                            row[5] = a_base + k_ch // 16 * spad_stride + i_row * loop[I_COLS] + i_col
                            row[6] = row[5] + row[7] * loop[STRIDE]
                            row[8] = loads
                            at += 1
    return at - first
