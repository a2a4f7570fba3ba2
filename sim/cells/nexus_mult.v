// Behavioural models of Lattice's MULT9X9 and MULT18X18 (Nexus: CrossLink-NX, Certus-NX), for simulation only.
//
// Input registers with a clock enable and a reset each (CEA, RSTA, CEB, RSTB) that hold SIGNEDA and SIGNEDB as well, and
// an output register (CEOUT, RSTOUT); resets are synchronous.
// Not modelled, and refused at time 0: RESETMODE ASYNC.
// Ports and parameters are those of yosys 0.70's library of cells; what the modes do is taken from their names and not
// yet checked against Lattice FPGA-TN-02096, sysDSP usage guide for Nexus platform.

`timescale 1ns/1ps
`default_nettype none

module nexus_mult #(
    parameter BITS = 18,
    parameter REGINPUTA = "REGISTER",
    parameter REGINPUTB = "REGISTER",
    parameter REGOUTPUT = "REGISTER",
    parameter RESETMODE = "SYNC"
) (
    input wire [BITS-1:0] A, B,
    input wire CLK, CEA, RSTA, CEB, RSTB, SIGNEDA, SIGNEDB, RSTOUT, CEOUT,
    output wire [2*BITS-1:0] Z
);
    initial
        if (RESETMODE != "SYNC") begin
            $display("MULT%0dX%0d: a mode that this model lacks", BITS, BITS);
            $finish;
        end

    reg [BITS:0] a_register = 0, b_register = 0;
    reg [2*BITS-1:0] out_register = 0;
    // The sign on top of the operand: a bit more holds either reading.
    wire [BITS:0] a_pins = {SIGNEDA & A[BITS-1], A}, b_pins = {SIGNEDB & B[BITS-1], B};
    wire signed [BITS:0] a = REGINPUTA == "REGISTER" ? a_register : a_pins;
    wire signed [BITS:0] b = REGINPUTB == "REGISTER" ? b_register : b_pins;
    wire signed [2*BITS+1:0] product = a * b;
    assign Z = REGOUTPUT == "REGISTER" ? out_register : product[2*BITS-1:0];
    always @(posedge CLK) begin
        if (RSTA) a_register <= 0; else if (CEA) a_register <= a_pins;
        if (RSTB) b_register <= 0; else if (CEB) b_register <= b_pins;
        if (RSTOUT) out_register <= 0; else if (CEOUT) out_register <= product[2*BITS-1:0];
    end
endmodule

module MULT9X9 #(
    parameter REGINPUTA = "REGISTER",
    parameter REGINPUTB = "REGISTER",
    parameter REGOUTPUT = "REGISTER",
    parameter GSR = "ENABLED",
    parameter RESETMODE = "SYNC"
) (
    input wire [8:0] A, B,
    input wire CLK, CEA, RSTA, CEB, RSTB, SIGNEDA, SIGNEDB, RSTOUT, CEOUT,
    output wire [17:0] Z
);
    nexus_mult #(9, REGINPUTA, REGINPUTB, REGOUTPUT, RESETMODE)
        body (A, B, CLK, CEA, RSTA, CEB, RSTB, SIGNEDA, SIGNEDB, RSTOUT, CEOUT, Z);
endmodule

module MULT18X18 #(
    parameter REGINPUTA = "REGISTER",
    parameter REGINPUTB = "REGISTER",
    parameter REGOUTPUT = "REGISTER",
    parameter GSR = "ENABLED",
    parameter RESETMODE = "SYNC"
) (
    input wire [17:0] A, B,
    input wire CLK, CEA, RSTA, CEB, RSTB, SIGNEDA, SIGNEDB, RSTOUT, CEOUT,
    output wire [35:0] Z
);
    nexus_mult #(18, REGINPUTA, REGINPUTB, REGOUTPUT, RESETMODE)
        body (A, B, CLK, CEA, RSTA, CEB, RSTB, SIGNEDA, SIGNEDB, RSTOUT, CEOUT, Z);
endmodule

`default_nettype wire
