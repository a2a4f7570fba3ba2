// Behavioural model of Lattice's SB_MAC16 (iCE40 UltraPlus) as a multiplier of 16 x 16 bits, for simulation only.
//
// Four products of 8 x 8 bits in registers of their own (TOP_8x8_MULT_REG, BOT_8x8_MULT_REG,
// PIPELINE_16x16_MULT_REG1), their weighted sum in another one (PIPELINE_16x16_MULT_REG2), input registers A_REG and
// B_REG, all with the common clock enable.
// Not modelled, and refused at time 0: outputs other than the product (TOPOUTPUT_SELECT and BOTOUTPUT_SELECT 3),
// MODE_8x8, NEG_TRIGGER, holds and resets.
// Source: Lattice FPGA-TN-1295, DSP function usage guide for iCE40 devices, named in yosys 0.70's library of cells, from
// which ports and parameters are; not yet checked against the guide itself.

`timescale 1ns/1ps
`default_nettype none

module SB_MAC16 #(
    parameter [0:0] NEG_TRIGGER = 0, C_REG = 0, A_REG = 0, B_REG = 0, D_REG = 0,
    parameter [0:0] TOP_8x8_MULT_REG = 0, BOT_8x8_MULT_REG = 0,
    parameter [0:0] PIPELINE_16x16_MULT_REG1 = 0, PIPELINE_16x16_MULT_REG2 = 0,
    parameter [1:0] TOPOUTPUT_SELECT = 0, TOPADDSUB_LOWERINPUT = 0,
    parameter [0:0] TOPADDSUB_UPPERINPUT = 0,
    parameter [1:0] TOPADDSUB_CARRYSELECT = 0, BOTOUTPUT_SELECT = 0, BOTADDSUB_LOWERINPUT = 0,
    parameter [0:0] BOTADDSUB_UPPERINPUT = 0,
    parameter [1:0] BOTADDSUB_CARRYSELECT = 0,
    parameter [0:0] MODE_8x8 = 0, A_SIGNED = 0, B_SIGNED = 0
) (
    input wire CLK, CE,
    input wire [15:0] C, A, B, D,
    input wire AHOLD, BHOLD, CHOLD, DHOLD, IRSTTOP, IRSTBOT, ORSTTOP, ORSTBOT, OLOADTOP, OLOADBOT,
    input wire ADDSUBTOP, ADDSUBBOT, OHOLDTOP, OHOLDBOT, CI, ACCUMCI, SIGNEXTIN,
    output wire [31:0] O,
    output wire CO, ACCUMCO, SIGNEXTOUT
);
    wire lacks = TOPOUTPUT_SELECT != 3 || BOTOUTPUT_SELECT != 3 || MODE_8x8 || NEG_TRIGGER
        || {AHOLD, BHOLD, IRSTTOP, IRSTBOT} !== 4'b0000;
    always @(posedge CLK)
        if (lacks) begin
            $display("SB_MAC16: a mode that this model lacks");
            $finish;
        end

    reg [15:0] a_register = 0, b_register = 0;
    wire [15:0] a = A_REG ? a_register : A, b = B_REG ? b_register : B;
    // Upper halves carry the sign of their operand, lower ones have none.
    wire signed [8:0] a_upper = {A_SIGNED & a[15], a[15:8]}, a_lower = {1'b0, a[7:0]};
    wire signed [8:0] b_upper = {B_SIGNED & b[15], b[15:8]}, b_lower = {1'b0, b[7:0]};
    wire signed [17:0] uu = a_upper * b_upper, ul = a_upper * b_lower, lu = a_lower * b_upper, ll = a_lower * b_lower;
    reg signed [17:0] uu_register = 0, ul_register = 0, lu_register = 0, ll_register = 0;
    wire signed [17:0] uu_piped = TOP_8x8_MULT_REG ? uu_register : uu;
    wire signed [17:0] ul_piped = PIPELINE_16x16_MULT_REG1 ? ul_register : ul;
    wire signed [17:0] lu_piped = PIPELINE_16x16_MULT_REG1 ? lu_register : lu;
    wire signed [17:0] ll_piped = BOT_8x8_MULT_REG ? ll_register : ll;
    wire signed [34:0] sum = uu_piped * 65536 + (ul_piped + lu_piped) * 256 + ll_piped;
    reg [31:0] sum_register = 0;
    assign O = PIPELINE_16x16_MULT_REG2 ? sum_register : sum[31:0];
    always @(posedge CLK)
        if (CE) begin
            a_register <= A;
            b_register <= B;
            uu_register <= uu;
            ul_register <= ul;
            lu_register <= lu;
            ll_register <= ll;
            sum_register <= sum[31:0];
        end
endmodule

`default_nettype wire
