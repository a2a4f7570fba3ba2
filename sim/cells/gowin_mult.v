// Behavioural models of Gowin's MULT9X9 and MULT18X18 (GW1N, GW2A), for simulation only: yosys has them as black boxes.
//
// Input registers (AREG, BREG), a register behind the multiplier (PIPE_REG) and one at the output (OUT_REG), all with
// clock enable and a synchronous reset; ASIGN and BSIGN say whether an operand is signed.
// Not modelled, and refused at time 0: the shift chain (ASEL, BSEL), registers of ASIGN, BSIGN and SOA, RESETMODE ASYNC.
// Ports and parameters are those of yosys 0.70's library of cells; what the modes do is taken from their names and not
// yet checked against Gowin UG287, Gowin digital signal processing user guide.

`timescale 1ns/1ps
`default_nettype none

module gowin_mult #(
    parameter BITS = 18,
    parameter AREG = 1'b0,
    parameter BREG = 1'b0,
    parameter PIPE_REG = 1'b0,
    parameter OUT_REG = 1'b0,
    parameter OTHERS = 1'b0
) (
    input wire [BITS-1:0] A, B,
    input wire ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output wire [2*BITS-1:0] DOUT
);
    initial
        if (OTHERS) begin
            $display("MULT%0dX%0d: a mode that this model lacks", BITS, BITS);
            $finish;
        end

    reg [BITS-1:0] a_register = 0, b_register = 0;
    reg [2*BITS-1:0] pipe_register = 0, out_register = 0;
    wire [BITS-1:0] a = AREG ? a_register : A, b = BREG ? b_register : B;
    // A bit more holds either reading of an operand.
    wire signed [BITS:0] a_wide = {ASIGN & a[BITS-1], a}, b_wide = {BSIGN & b[BITS-1], b};
    wire signed [2*BITS+1:0] product = a_wide * b_wide;
    wire [2*BITS-1:0] pipe = PIPE_REG ? pipe_register : product[2*BITS-1:0];
    assign DOUT = OUT_REG ? out_register : pipe;
    always @(posedge CLK)
        if (RESET) begin
            a_register <= 0;
            b_register <= 0;
            pipe_register <= 0;
            out_register <= 0;
        end else if (CE) begin
            a_register <= A;
            b_register <= B;
            pipe_register <= product[2*BITS-1:0];
            out_register <= pipe;
        end
    always @(posedge CLK)
        if (ASEL !== 1'b0 || BSEL !== 1'b0) begin
            $display("MULT%0dX%0d: a mode that this model lacks", BITS, BITS);
            $finish;
        end
endmodule

module MULT9X9 #(
    parameter AREG = 1'b0,
    parameter BREG = 1'b0,
    parameter PIPE_REG = 1'b0,
    parameter OUT_REG = 1'b0,
    parameter ASIGN_REG = 1'b0,
    parameter BSIGN_REG = 1'b0,
    parameter SOA_REG = 1'b0,
    parameter MULT_RESET_MODE = "SYNC"
) (
    input wire [8:0] A, SIA, B, SIB,
    input wire ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output wire [17:0] DOUT,
    output wire [8:0] SOA, SOB
);
    gowin_mult #(9, AREG, BREG, PIPE_REG, OUT_REG, ASIGN_REG || BSIGN_REG || SOA_REG || MULT_RESET_MODE != "SYNC")
        body (A, B, ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET, DOUT);
endmodule

module MULT18X18 #(
    parameter AREG = 1'b0,
    parameter BREG = 1'b0,
    parameter PIPE_REG = 1'b0,
    parameter OUT_REG = 1'b0,
    parameter ASIGN_REG = 1'b0,
    parameter BSIGN_REG = 1'b0,
    parameter SOA_REG = 1'b0,
    parameter MULT_RESET_MODE = "SYNC"
) (
    input wire [17:0] A, SIA, B, SIB,
    input wire ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output wire [35:0] DOUT,
    output wire [17:0] SOA, SOB
);
    gowin_mult #(18, AREG, BREG, PIPE_REG, OUT_REG, ASIGN_REG || BSIGN_REG || SOA_REG || MULT_RESET_MODE != "SYNC")
        body (A, B, ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET, DOUT);
endmodule

`default_nettype wire
