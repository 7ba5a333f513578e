#include "textflag.h"

// BLAKE3's compression of sixteen blocks side by side: each register holds one word of
// all of them. The state is in Z0 to Z15, the message in Z16 to Z31, and both stay there:
// what moves from round to round is what the words are called.
//
// Section numbers are those of the BLAKE3 paper (2021).

// The initialization vector (table 1).
DATA iv<>+0(SB)/4, $0x6a09e667
DATA iv<>+4(SB)/4, $0xbb67ae85
DATA iv<>+8(SB)/4, $0x3c6ef372
DATA iv<>+12(SB)/4, $0xa54ff53a
DATA iv<>+16(SB)/4, $0x510e527f
DATA iv<>+20(SB)/4, $0x9b05688c
DATA iv<>+24(SB)/4, $0x1f83d9ab
DATA iv<>+28(SB)/4, $0x5be0cd19
GLOBL iv<>(SB), RODATA|NOPTR, $32

// QUARTER is half of four of the quarter-rounds of section 2.2, whose first words are
// Z0 to Z3.
#define QUARTER(b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, m0, m1, m2, m3, right1, right2) \
	VPADDD m0, Z0, Z0; VPADDD m1, Z1, Z1; VPADDD m2, Z2, Z2; VPADDD m3, Z3, Z3; \
	VPADDD b0, Z0, Z0; VPADDD b1, Z1, Z1; VPADDD b2, Z2, Z2; VPADDD b3, Z3, Z3; \
	VPXORD Z0, d0, d0; VPXORD Z1, d1, d1; VPXORD Z2, d2, d2; VPXORD Z3, d3, d3; \
	VPRORD $right1, d0, d0; VPRORD $right1, d1, d1; VPRORD $right1, d2, d2; VPRORD $right1, d3, d3; \
	VPADDD d0, c0, c0; VPADDD d1, c1, c1; VPADDD d2, c2, c2; VPADDD d3, c3, c3; \
	VPXORD c0, b0, b0; VPXORD c1, b1, b1; VPXORD c2, b2, b2; VPXORD c3, b3, b3; \
	VPRORD $right2, b0, b0; VPRORD $right2, b1, b1; VPRORD $right2, b2, b2; VPRORD $right2, b3, b3

// ROUND mixes columns, then diagonals.
#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	QUARTER(Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, m0, m2, m4, m6, 16, 12); \
	QUARTER(Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, m1, m3, m5, m7, 8, 7); \
	QUARTER(Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14, m8, m10, m12, m14, 16, 12); \
	QUARTER(Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14, m9, m11, m13, m15, 8, 7)

// QUADS transposes each 4x4 words of four rows: of what was word 4k+i of the rows, ri
// becomes the k-th quarter.
#define QUADS(r0, r1, r2, r3) \
	VPUNPCKLDQ r1, r0, Z8; VPUNPCKHDQ r1, r0, Z9; \
	VPUNPCKLDQ r3, r2, Z10; VPUNPCKHDQ r3, r2, Z11; \
	VPUNPCKLQDQ Z10, Z8, r0; VPUNPCKHQDQ Z10, Z8, r1; \
	VPUNPCKLQDQ Z11, Z9, r2; VPUNPCKHQDQ Z11, Z9, r3

// QUARTERS transposes the 4x4 quarters of four rows.
#define QUARTERS(r0, r1, r2, r3) \
	VSHUFI32X4 $0x88, r1, r0, Z12; VSHUFI32X4 $0xdd, r1, r0, Z13; \
	VSHUFI32X4 $0x88, r3, r2, Z14; VSHUFI32X4 $0xdd, r3, r2, Z15; \
	VSHUFI32X4 $0x88, Z14, Z12, r0; VSHUFI32X4 $0x88, Z15, Z13, r1; \
	VSHUFI32X4 $0xdd, Z14, Z12, r2; VSHUFI32X4 $0xdd, Z15, Z13, r3

// TRANSPOSE makes words of blocks: of a block in each of Z16 to Z31, the words that the
// blocks have in common.
#define TRANSPOSE \
	QUADS(Z16, Z17, Z18, Z19); QUADS(Z20, Z21, Z22, Z23); \
	QUADS(Z24, Z25, Z26, Z27); QUADS(Z28, Z29, Z30, Z31); \
	QUARTERS(Z16, Z20, Z24, Z28); QUARTERS(Z17, Z21, Z25, Z29); \
	QUARTERS(Z18, Z22, Z26, Z30); QUARTERS(Z19, Z23, Z27, Z31)

// INPUT is the chaining value that a tree's first blocks have.
#define INPUT \
	VPBROADCASTD iv<>+0(SB), Z0; VPBROADCASTD iv<>+4(SB), Z1; \
	VPBROADCASTD iv<>+8(SB), Z2; VPBROADCASTD iv<>+12(SB), Z3; \
	VPBROADCASTD iv<>+16(SB), Z4; VPBROADCASTD iv<>+20(SB), Z5; \
	VPBROADCASTD iv<>+24(SB), Z6; VPBROADCASTD iv<>+28(SB), Z7

// SETTING is the rest of the state but for the counter: constants, the length of a block
// and the flags in AX.
#define SETTING \
	VPBROADCASTD iv<>+0(SB), Z8; VPBROADCASTD iv<>+4(SB), Z9; \
	VPBROADCASTD iv<>+8(SB), Z10; VPBROADCASTD iv<>+12(SB), Z11; \
	MOVL $64, BX; VPBROADCASTD BX, Z14; VPBROADCASTD AX, Z15

// MIX is the seven rounds, between which the message is permuted (table 2), and what is
// left of the state.
TEXT mix<>(SB), NOSPLIT|NOFRAME, $0-0
	ROUND(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	ROUND(Z18, Z22, Z19, Z26, Z23, Z16, Z20, Z29, Z17, Z27, Z28, Z21, Z25, Z30, Z31, Z24)
	ROUND(Z19, Z20, Z26, Z28, Z29, Z18, Z23, Z30, Z22, Z21, Z25, Z16, Z27, Z31, Z24, Z17)
	ROUND(Z26, Z23, Z28, Z25, Z30, Z19, Z29, Z31, Z20, Z16, Z27, Z18, Z21, Z24, Z17, Z22)
	ROUND(Z28, Z29, Z25, Z27, Z31, Z26, Z30, Z24, Z23, Z18, Z21, Z19, Z16, Z17, Z22, Z20)
	ROUND(Z25, Z30, Z27, Z21, Z24, Z28, Z31, Z17, Z29, Z19, Z16, Z26, Z18, Z22, Z20, Z23)
	ROUND(Z27, Z31, Z21, Z16, Z17, Z25, Z24, Z22, Z30, Z26, Z18, Z28, Z19, Z20, Z23, Z29)
	VPXORD Z8, Z0, Z0
	VPXORD Z9, Z1, Z1
	VPXORD Z10, Z2, Z2
	VPXORD Z11, Z3, Z3
	VPXORD Z12, Z4, Z4
	VPXORD Z13, Z5, Z5
	VPXORD Z14, Z6, Z6
	VPXORD Z15, Z7, Z7
	RET

// STORE writes the chaining values out, one block's after the other's.
#define STORE \
	QUADS(Z0, Z1, Z2, Z3); QUADS(Z4, Z5, Z6, Z7); \
	VEXTRACTI32X4 $0, Z0, 0(DI); \
	VEXTRACTI32X4 $1, Z0, 128(DI); \
	VEXTRACTI32X4 $2, Z0, 256(DI); \
	VEXTRACTI32X4 $3, Z0, 384(DI); \
	VEXTRACTI32X4 $0, Z4, 16(DI); \
	VEXTRACTI32X4 $1, Z4, 144(DI); \
	VEXTRACTI32X4 $2, Z4, 272(DI); \
	VEXTRACTI32X4 $3, Z4, 400(DI); \
	VEXTRACTI32X4 $0, Z1, 32(DI); \
	VEXTRACTI32X4 $1, Z1, 160(DI); \
	VEXTRACTI32X4 $2, Z1, 288(DI); \
	VEXTRACTI32X4 $3, Z1, 416(DI); \
	VEXTRACTI32X4 $0, Z5, 48(DI); \
	VEXTRACTI32X4 $1, Z5, 176(DI); \
	VEXTRACTI32X4 $2, Z5, 304(DI); \
	VEXTRACTI32X4 $3, Z5, 432(DI); \
	VEXTRACTI32X4 $0, Z2, 64(DI); \
	VEXTRACTI32X4 $1, Z2, 192(DI); \
	VEXTRACTI32X4 $2, Z2, 320(DI); \
	VEXTRACTI32X4 $3, Z2, 448(DI); \
	VEXTRACTI32X4 $0, Z6, 80(DI); \
	VEXTRACTI32X4 $1, Z6, 208(DI); \
	VEXTRACTI32X4 $2, Z6, 336(DI); \
	VEXTRACTI32X4 $3, Z6, 464(DI); \
	VEXTRACTI32X4 $0, Z3, 96(DI); \
	VEXTRACTI32X4 $1, Z3, 224(DI); \
	VEXTRACTI32X4 $2, Z3, 352(DI); \
	VEXTRACTI32X4 $3, Z3, 480(DI); \
	VEXTRACTI32X4 $0, Z7, 112(DI); \
	VEXTRACTI32X4 $1, Z7, 240(DI); \
	VEXTRACTI32X4 $2, Z7, 368(DI); \
	VEXTRACTI32X4 $3, Z7, 496(DI)

// func chunks(out *[16][8]uint32, in *[16 * 1024]byte, counters *[2][16]uint32)
TEXT ·chunks(SB), NOSPLIT, $0-24
	MOVQ out+0(FP), DI
	MOVQ in+8(FP), SI
	MOVQ counters+16(FP), DX
	INPUT
	MOVL $16, CX
	MOVL $1, AX // CHUNK_START

block:
	VMOVDQU32 0(SI), Z16
	VMOVDQU32 1024(SI), Z17
	VMOVDQU32 2048(SI), Z18
	VMOVDQU32 3072(SI), Z19
	VMOVDQU32 4096(SI), Z20
	VMOVDQU32 5120(SI), Z21
	VMOVDQU32 6144(SI), Z22
	VMOVDQU32 7168(SI), Z23
	VMOVDQU32 8192(SI), Z24
	VMOVDQU32 9216(SI), Z25
	VMOVDQU32 10240(SI), Z26
	VMOVDQU32 11264(SI), Z27
	VMOVDQU32 12288(SI), Z28
	VMOVDQU32 13312(SI), Z29
	VMOVDQU32 14336(SI), Z30
	VMOVDQU32 15360(SI), Z31
	TRANSPOSE
	SETTING
	VMOVDQU32 (DX), Z12
	VMOVDQU32 64(DX), Z13
	CALL mix<>(SB)
	ADDQ $64, SI
	XORL AX, AX
	DECL CX
	CMPL CX, $1
	JGT  block
	MOVL $2, AX // CHUNK_END
	JEQ  block
	STORE
	VZEROUPPER
	RET

// func parents(out *[16][8]uint32, in *[32][8]uint32)
TEXT ·parents(SB), NOSPLIT, $0-16
	MOVQ out+0(FP), DI
	MOVQ in+8(FP), SI
	INPUT
	MOVL $4, AX // PARENT
	VMOVDQU32 0(SI), Z16
	VMOVDQU32 64(SI), Z17
	VMOVDQU32 128(SI), Z18
	VMOVDQU32 192(SI), Z19
	VMOVDQU32 256(SI), Z20
	VMOVDQU32 320(SI), Z21
	VMOVDQU32 384(SI), Z22
	VMOVDQU32 448(SI), Z23
	VMOVDQU32 512(SI), Z24
	VMOVDQU32 576(SI), Z25
	VMOVDQU32 640(SI), Z26
	VMOVDQU32 704(SI), Z27
	VMOVDQU32 768(SI), Z28
	VMOVDQU32 832(SI), Z29
	VMOVDQU32 896(SI), Z30
	VMOVDQU32 960(SI), Z31
	TRANSPOSE
	SETTING
	VPXORD Z12, Z12, Z12
	VPXORD Z13, Z13, Z13
	CALL mix<>(SB)
	STORE
	VZEROUPPER
	RET
