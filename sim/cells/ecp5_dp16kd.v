// Behavioural model of Lattice's DP16KD (ECP5), for simulation only: yosys has this cell as a black box.
//
// 18 kbit with two ports, each with its clock, clock enable, write enable, chip select and optional output register.
// Rows and strobes lie where yosys 0.70 puts them when it maps memories to this cell; what the modes do is taken from
// their names and not yet checked against "ECP5 and ECP5-5G Memory Usage Guide" (FPGA-TN-02204). Modelled: widths 1, 2, 4, 9 and 18 (the row at the top of the 14 address bits; at 18
// bits ADx1 and ADx0 are the byte strobes of a write), REGMODE NOREG and OUTREG with OCE and synchronous reset,
// WRITEMODE NORMAL (a port that writes keeps its output), power-up at 0. What one port reads of 18 bits of which the
// other writes some in that clock is X.
// Not modelled, and refused at time 0: other write modes, CSDECODE other than 0b000, RESETMODE ASYNC, 36 bits.

`timescale 1ns/1ps
`default_nettype none

module DP16KD #(
    parameter DATA_WIDTH_A = 18,
    parameter DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG",
    parameter REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC",
    parameter ASYNC_RESET_RELEASE = "SYNC",
    parameter WRITEMODE_A = "NORMAL",
    parameter WRITEMODE_B = "NORMAL",
    parameter CSDECODE_A = "0b000",
    parameter CSDECODE_B = "0b000",
    parameter GSR = "ENABLED"
) (
    input wire DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3,
        DIA2, DIA1, DIA0,
    input wire ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input wire CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    output wire DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3,
        DOA2, DOA1, DOA0,
    input wire DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3,
        DIB2, DIB1, DIB0,
    input wire ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input wire CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output wire DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3,
        DOB2, DOB1, DOB0
);
    initial if (WRITEMODE_A != "NORMAL" || WRITEMODE_B != "NORMAL" || CSDECODE_A != "0b000" || CSDECODE_B != "0b000"
            || RESETMODE != "SYNC" || DATA_WIDTH_A > 18 || DATA_WIDTH_B > 18) begin
        $display("DP16KD: a mode that this model does not have");
        $finish;
    end

    function integer shift(input integer width);
        shift = width == 18 ? 4 : width == 9 ? 3 : width == 4 ? 2 : width == 2 ? 1 : 0;
    endfunction

    wire [17:0] dia = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4,
        DIA3, DIA2, DIA1, DIA0};
    wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
        DIB3, DIB2, DIB1, DIB0};
    wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire on_a = CEA & ~CSA2 & ~CSA1 & ~CSA0, on_b = CEB & ~CSB2 & ~CSB1 & ~CSB0;

    reg [17:0] rows [0:1023];
    integer n;
    initial for (n = 0; n < 1024; n = n + 1) rows[n] = 0;

    // Where bit `index` of a narrow row lies within the 18 bits: two bytes of nine, whose ninth bits only widths of 9
    // and 18 use.
    function integer place(input integer width, input [13:0] address, input integer index);
        integer low;
        begin
            low = address[3:0] >> shift(width) << shift(width);
            place = width == 18 ? index : width == 9 ? 9 * address[3] + index : 9 * (low / 8) + low % 8 + index;
        end
    endfunction

    reg [17:0] word_a = 0, word_b = 0, register_a = 0, register_b = 0;
    integer k, p;
    always @(posedge CLKA) begin
        if (RSTA) register_a <= 0; else if (OCEA) register_a <= word_a;
        if (on_a) begin
            if (WEA) begin
                for (k = 0; k < DATA_WIDTH_A; k = k + 1)
                    if (DATA_WIDTH_A != 18 || (k < 9 ? ada[0] : ada[1])) begin
                        p = place(DATA_WIDTH_A, ada, k);
                        rows[ada[13:4]][p] <= dia[k];
                    end
            end else
                for (k = 0; k < DATA_WIDTH_A; k = k + 1)
                    word_a[k] <= WEB & on_b & ada[13:4] == adb[13:4] ? 1'bx
                        : rows[ada[13:4]][place(DATA_WIDTH_A, ada, k)];
        end
    end
    integer q, r;
    always @(posedge CLKB) begin
        if (RSTB) register_b <= 0; else if (OCEB) register_b <= word_b;
        if (on_b) begin
            if (WEB) begin
                for (q = 0; q < DATA_WIDTH_B; q = q + 1)
                    if (DATA_WIDTH_B != 18 || (q < 9 ? adb[0] : adb[1])) begin
                        r = place(DATA_WIDTH_B, adb, q);
                        rows[adb[13:4]][r] <= dib[q];
                    end
            end else
                for (q = 0; q < DATA_WIDTH_B; q = q + 1)
                    word_b[q] <= WEA & on_a & ada[13:4] == adb[13:4] ? 1'bx
                        : rows[adb[13:4]][place(DATA_WIDTH_B, adb, q)];
        end
    end
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
        DOA1, DOA0} = REGMODE_A == "OUTREG" ? register_a : word_a;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
        DOB1, DOB0} = REGMODE_B == "OUTREG" ? register_b : word_b;
endmodule
`default_nettype wire
