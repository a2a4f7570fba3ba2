// Behavioural model of Lattice's CCU2C (ECP5), for simulation only: two bits of a carry chain.
//
// Each bit is a look-up table of four inputs, whose output is exclusive-ored with the carry that comes in. Where the
// table gives 1 the carry passes; where it gives 0 the carry is what the table gives for C = D = 0, that is INIT[3:0].
// INJECT1_x = "YES" takes bit x out of the chain: its sum is the table alone and it generates no carry.
// How the carry is made is what yosys 0.70 assumes when it maps `$alu` to this cell; not yet checked against a data
// sheet, nor on a chip.

`timescale 1ns/1ps
`default_nettype none

module CCU2C #(
    parameter [15:0] INIT0 = 16'h0000,
    parameter [15:0] INIT1 = 16'h0000,
    parameter INJECT1_0 = "YES",
    parameter INJECT1_1 = "YES"
) (
    input wire CIN, A0, B0, C0, D0, A1, B1, C1, D1,
    output wire S0, S1, COUT
);
    wire table0 = INIT0[{D0, C0, B0, A0}], table1 = INIT1[{D1, C1, B1, A1}];
    wire makes0 = INJECT1_0 != "YES" && INIT0[{2'b00, B0, A0}];
    wire makes1 = INJECT1_1 != "YES" && INIT1[{2'b00, B1, A1}];
    wire middle = table0 ? CIN : makes0;
    assign S0 = table0 ^ (INJECT1_0 != "YES" && CIN);
    assign S1 = table1 ^ (INJECT1_1 != "YES" && middle);
    assign COUT = table1 ? middle : makes1;
endmodule

`default_nettype wire
