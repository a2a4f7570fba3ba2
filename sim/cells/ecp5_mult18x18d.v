// Behavioural model of Lattice's MULT18X18D (ECP5), for simulation only: yosys has this cell as a black box.
//
// Written from the description of the slice in "ECP5 and ECP5-5G sysDSP Usage Guide" (FPGA-TN-02205): an
// 18 x 18 multiplier with optional input, pipeline and output registers, each with its own choice of clock,
// clock enable and reset. Modelled: those registers, SIGNEDA/SIGNEDB (registered along with their operand),
// SOURCEA/SOURCEB with the shift chains SRIA/SRIB -> SROA/SROB, RESETMODE SYNC and ASYNC, power-up at 0.
// Not modelled, and refused at time 0: SOURCEB_MODE other than B_SHIFT, MULT_BYPASS, HIGHSPEED_CLK,
// CAS_MATCH_REG. C passes to ROC unregistered. GSR has no net in a plain simulation.

`timescale 1ns/1ps
`default_nettype none

// One optional register of the slice: CLK "NONE" is a wire.
module ecp5_dsp_register #(
    parameter WIDTH = 1,
    parameter CLK = "NONE",
    parameter CE = "CE0",
    parameter RST = "RST0",
    parameter RESETMODE = "SYNC"
) (
    input wire [3:0] clks,
    input wire [3:0] ces,
    input wire [3:0] rsts,
    input wire [WIDTH-1:0] d,
    output wire [WIDTH-1:0] q
);
    wire clk = CLK == "CLK3" ? clks[3] : CLK == "CLK2" ? clks[2] : CLK == "CLK1" ? clks[1] : clks[0];
    wire ce = CE == "CE3" ? ces[3] : CE == "CE2" ? ces[2] : CE == "CE1" ? ces[1] : ces[0];
    wire rst = RST == "RST3" ? rsts[3] : RST == "RST2" ? rsts[2] : RST == "RST1" ? rsts[1] : rsts[0];
    reg [WIDTH-1:0] value = 0;
    generate
        if (RESETMODE == "ASYNC") begin : g_async
            always @(posedge clk or posedge rst)
                if (rst) value <= 0;
                else if (ce) value <= d;
        end else begin : g_sync
            always @(posedge clk)
                if (rst) value <= 0;
                else if (ce) value <= d;
        end
    endgenerate
    assign q = CLK == "NONE" ? d : value;
endmodule

module MULT18X18D #(
    parameter REG_INPUTA_CLK = "NONE",
    parameter REG_INPUTA_CE = "CE0",
    parameter REG_INPUTA_RST = "RST0",
    parameter REG_INPUTB_CLK = "NONE",
    parameter REG_INPUTB_CE = "CE0",
    parameter REG_INPUTB_RST = "RST0",
    parameter REG_INPUTC_CLK = "NONE",
    parameter REG_INPUTC_CE = "CE0",
    parameter REG_INPUTC_RST = "RST0",
    parameter REG_PIPELINE_CLK = "NONE",
    parameter REG_PIPELINE_CE = "CE0",
    parameter REG_PIPELINE_RST = "RST0",
    parameter REG_OUTPUT_CLK = "NONE",
    parameter REG_OUTPUT_CE = "CE0",
    parameter REG_OUTPUT_RST = "RST0",
    parameter CLK0_DIV = "ENABLED",
    parameter CLK1_DIV = "ENABLED",
    parameter CLK2_DIV = "ENABLED",
    parameter CLK3_DIV = "ENABLED",
    parameter HIGHSPEED_CLK = "NONE",
    parameter GSR = "ENABLED",
    parameter CAS_MATCH_REG = "FALSE",
    parameter SOURCEB_MODE = "B_SHIFT",
    parameter MULT_BYPASS = "DISABLED",
    parameter RESETMODE = "SYNC"
) (
    input wire A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input wire B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input wire C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input wire SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input wire CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0, RST3, RST2, RST1, RST0,
    input wire SRIA17, SRIA16, SRIA15, SRIA14, SRIA13, SRIA12, SRIA11, SRIA10, SRIA9, SRIA8, SRIA7, SRIA6,
        SRIA5, SRIA4, SRIA3, SRIA2, SRIA1, SRIA0,
    input wire SRIB17, SRIB16, SRIB15, SRIB14, SRIB13, SRIB12, SRIB11, SRIB10, SRIB9, SRIB8, SRIB7, SRIB6,
        SRIB5, SRIB4, SRIB3, SRIB2, SRIB1, SRIB0,
    output wire SROA17, SROA16, SROA15, SROA14, SROA13, SROA12, SROA11, SROA10, SROA9, SROA8, SROA7, SROA6,
        SROA5, SROA4, SROA3, SROA2, SROA1, SROA0,
    output wire SROB17, SROB16, SROB15, SROB14, SROB13, SROB12, SROB11, SROB10, SROB9, SROB8, SROB7, SROB6,
        SROB5, SROB4, SROB3, SROB2, SROB1, SROB0,
    output wire ROA17, ROA16, ROA15, ROA14, ROA13, ROA12, ROA11, ROA10, ROA9, ROA8, ROA7, ROA6, ROA5, ROA4,
        ROA3, ROA2, ROA1, ROA0,
    output wire ROB17, ROB16, ROB15, ROB14, ROB13, ROB12, ROB11, ROB10, ROB9, ROB8, ROB7, ROB6, ROB5, ROB4,
        ROB3, ROB2, ROB1, ROB0,
    output wire ROC17, ROC16, ROC15, ROC14, ROC13, ROC12, ROC11, ROC10, ROC9, ROC8, ROC7, ROC6, ROC5, ROC4,
        ROC3, ROC2, ROC1, ROC0,
    output wire P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17,
        P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0,
    output wire SIGNEDP
);
    initial
        if (SOURCEB_MODE != "B_SHIFT" || MULT_BYPASS != "DISABLED" || HIGHSPEED_CLK != "NONE"
            || CAS_MATCH_REG != "FALSE" || REG_INPUTC_CLK != "NONE") begin
            $display("MULT18X18D: a mode that this model lacks");
            $finish;
        end

    wire [3:0] clks = {CLK3, CLK2, CLK1, CLK0};
    wire [3:0] ces = {CE3, CE2, CE1, CE0};
    wire [3:0] rsts = {RST3, RST2, RST1, RST0};

    wire [17:0] a_pins = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b_pins = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
    wire [17:0] a_chain = {SRIA17, SRIA16, SRIA15, SRIA14, SRIA13, SRIA12, SRIA11, SRIA10, SRIA9, SRIA8,
        SRIA7, SRIA6, SRIA5, SRIA4, SRIA3, SRIA2, SRIA1, SRIA0};
    wire [17:0] b_chain = {SRIB17, SRIB16, SRIB15, SRIB14, SRIB13, SRIB12, SRIB11, SRIB10, SRIB9, SRIB8,
        SRIB7, SRIB6, SRIB5, SRIB4, SRIB3, SRIB2, SRIB1, SRIB0};

    wire [17:0] a, b;
    wire a_signed, b_signed;
    ecp5_dsp_register #(19, REG_INPUTA_CLK, REG_INPUTA_CE, REG_INPUTA_RST, RESETMODE) input_a (
        clks, ces, rsts, {SIGNEDA, SOURCEA ? a_chain : a_pins}, {a_signed, a});
    ecp5_dsp_register #(19, REG_INPUTB_CLK, REG_INPUTB_CE, REG_INPUTB_RST, RESETMODE) input_b (
        clks, ces, rsts, {SIGNEDB, SOURCEB ? b_chain : b_pins}, {b_signed, b});

    // 19 bits signed hold either reading of 18 bits.
    wire signed [18:0] a_wide = {a_signed & a[17], a};
    wire signed [18:0] b_wide = {b_signed & b[17], b};
    wire signed [37:0] product = a_wide * b_wide;

    wire [35:0] p_inside, p;
    wire signed_inside, signed_out;
    ecp5_dsp_register #(37, REG_PIPELINE_CLK, REG_PIPELINE_CE, REG_PIPELINE_RST, RESETMODE) pipeline (
        clks, ces, rsts, {a_signed | b_signed, product[35:0]}, {signed_inside, p_inside});
    ecp5_dsp_register #(37, REG_OUTPUT_CLK, REG_OUTPUT_CE, REG_OUTPUT_RST, RESETMODE) out (
        clks, ces, rsts, {signed_inside, p_inside}, {signed_out, p});

    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17,
        P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = p;
    assign SIGNEDP = signed_out;
    assign {SROA17, SROA16, SROA15, SROA14, SROA13, SROA12, SROA11, SROA10, SROA9, SROA8, SROA7, SROA6, SROA5,
        SROA4, SROA3, SROA2, SROA1, SROA0} = a;
    assign {SROB17, SROB16, SROB15, SROB14, SROB13, SROB12, SROB11, SROB10, SROB9, SROB8, SROB7, SROB6, SROB5,
        SROB4, SROB3, SROB2, SROB1, SROB0} = b;
    assign {ROA17, ROA16, ROA15, ROA14, ROA13, ROA12, ROA11, ROA10, ROA9, ROA8, ROA7, ROA6, ROA5, ROA4, ROA3,
        ROA2, ROA1, ROA0} = a;
    assign {ROB17, ROB16, ROB15, ROB14, ROB13, ROB12, ROB11, ROB10, ROB9, ROB8, ROB7, ROB6, ROB5, ROB4, ROB3,
        ROB2, ROB1, ROB0} = b;
    assign {ROC17, ROC16, ROC15, ROC14, ROC13, ROC12, ROC11, ROC10, ROC9, ROC8, ROC7, ROC6, ROC5, ROC4, ROC3,
        ROC2, ROC1, ROC0} = {C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0};
endmodule

`default_nettype wire
