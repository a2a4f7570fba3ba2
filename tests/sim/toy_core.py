"""A small core with the ports and the register map of a real one, to test the test equipment with.

    picture[c] = (raw + offset[c]) mod 2**16,    c = 0, 1, 2
    gradient   = sum_c (picture[c] - target[c])  mod 2**24, or sum_c cotangent[c] if ``loss.kind`` is 3
    results    = (sum of all gradients, number of pixels) of a group

Three parameters follow the sixteen frame words. ``picture``, ``gradient`` and ``expected_results`` say the
same in numpy, ``toy_core`` in Verilog, with the faults that the test equipment has to notice.
"""

from __future__ import annotations

import numpy as np

FAULTS = (
    "none",
    "drops_valid",
    "changes_payload",
    "stuck",
    "no_last",
    "dirty_padding",
    "extra_beat",
    "no_results",
)
"""What frame word 9 switches on in the toy."""


def frame_words(
    *,
    width: int,
    height: int,
    frames: int = 1,
    kind: int = 0,
    offset: tuple[int, ...] = (1, 2, 3),
    depth: int = 16,
    fault: str = "none",
) -> np.ndarray:
    """The parameter memory of the toy."""
    words = [width, height, 0, depth, frames, 0, kind, 0, 256, FAULTS.index(fault), *[0] * 6, *offset]
    return np.array(words, np.int64)


def picture(raw: np.ndarray, offset: tuple[int, ...] = (1, 2, 3)) -> np.ndarray:
    """[N,1,H,W] uint16 -> [N,3,H,W] uint16."""
    return (raw.astype(np.int64) + np.array(offset).reshape(1, 3, 1, 1)).astype(np.uint16)


def gradient(
    raw: np.ndarray, *, target: np.ndarray | None = None, cotangent: np.ndarray | None = None
) -> np.ndarray:
    """[N,1,H,W] int32: the sum over the channels of picture - target, or of the cotangent, in 24 bits."""
    if cotangent is not None:
        total = cotangent.astype(np.int64).sum(axis=1, keepdims=True)
    else:
        assert target is not None
        total = (picture(raw).astype(np.int64) - target.astype(np.int64)).sum(axis=1, keepdims=True)
    return ((total + (1 << 23)) % (1 << 24) - (1 << 23)).astype(np.int32)


def expected_results(gradients: np.ndarray, group: int) -> np.ndarray:
    """[groups, 2] int64."""
    grouped = gradients.reshape(-1, group, *gradients.shape[1:]).astype(np.int64)
    pixels = np.full(len(grouped), grouped[0].size)
    return np.stack([grouped.sum(axis=(1, 2, 3, 4)), pixels], axis=1)


def toy_core(*, lanes: int = 1, vjp: bool = True, with_picture: bool = True) -> str:
    """SystemVerilog of the toy with top module ``core``."""
    ports = ["input clk", "input rst"]

    def axis(name: str, width: int, inward: bool) -> None:
        a, b = ("input", "output") if inward else ("output", "input")
        prefix = f"{'s' if inward else 'm'}_axis_{name}"
        ports.extend([f"{a} [{width - 1}:0] {prefix}_tdata", f"{a} {prefix}_tvalid", f"{b} {prefix}_tready"])
        ports.extend([f"{a} {prefix}_tuser", f"{a} {prefix}_tlast"])

    axis("raw", 16 * lanes, True)
    if vjp:
        axis("target", 48 * lanes, True)
        axis("cotangent", 72 * lanes, True)
        axis("gradient", 24 * lanes, False)
    if with_picture:
        axis("picture", 48 * lanes, False)
    ports += [
        "input [15:0] s_axil_awaddr", "input s_axil_awvalid", "output s_axil_awready",
        "input [31:0] s_axil_wdata", "input [3:0] s_axil_wstrb", "input s_axil_wvalid", "output s_axil_wready",
        "output [1:0] s_axil_bresp", "output reg s_axil_bvalid", "input s_axil_bready",
        "input [15:0] s_axil_araddr", "input s_axil_arvalid", "output s_axil_arready",
        "output reg [31:0] s_axil_rdata", "output [1:0] s_axil_rresp", "output reg s_axil_rvalid",
        "input s_axil_rready",
    ]  # fmt: skip
    code = [f"module core ({', '.join(ports)});", f"localparam P = {lanes};"]
    if not vjp:
        code += ["wire s_axis_target_tvalid = 0, s_axis_cotangent_tvalid = 0, m_axis_gradient_tready = 1;",
                 "wire [48*P-1:0] s_axis_target_tdata = 0; wire [72*P-1:0] s_axis_cotangent_tdata = 0;"]  # fmt: skip
    if not with_picture:
        code += ["wire m_axis_picture_tready = 1;"]
    code.append(
        """
  reg [31:0] mem [0:18];
  reg [31:0] active [0:18];
  reg pending, ready, live, halted, extra;
  reg [15:0] errors;
  reg [31:0] finished, frames_done, in_group;
  reg [63:0] cycles, pixels, sum, count, result0, result1;
  reg [15:0] x, y;
  wire [15:0] width = active[0][15:0], height = active[1][15:0];
  wire [47:0] offsets = {active[18][15:0], active[17][15:0], active[16][15:0]};
  wire external = active[6] == 3;
  reg pv, pu, pl, gv, gu, gl;
  reg [48*P-1:0] pd, pd_next;
  reg [24*P-1:0] gd, gd_next;
  reg [63:0] sum_next;
  reg [7:0] lanes_on;
  wire room = (!pv | m_axis_picture_tready) & (!gv | m_axis_gradient_tready);
  wire at_start = x == 0 && y == 0;
  wire gate = live & !(at_start & pending) & !halted;
  wire joined = !VJP | (external ? s_axis_cotangent_tvalid : s_axis_target_tvalid);
  wire fire = s_axis_raw_tvalid & joined & room & gate;
  assign s_axis_raw_tready = joined & room & gate;
  wire eol = x + P >= width;
  wire eof = eol & (y + 1 == height);
  integer p, c;
  reg signed [31:0] total;
  always_comb begin
    pd_next = 0; gd_next = 0; sum_next = sum; lanes_on = 0;
    for (p = 0; p < P; p = p + 1) if (x + p < width || FAULT_dirty_padding) begin
      total = 0;
      for (c = 0; c < 3; c = c + 1) begin
        pd_next[48*p + 16*c +: 16] = s_axis_raw_tdata[16*p +: 16] + offsets[16*c +: 16];
        if (external) total = total + $signed(s_axis_cotangent_tdata[72*p + 24*c +: 24]);
        else total = total + $signed({1'b0, pd_next[48*p + 16*c +: 16]})
                           - $signed({1'b0, s_axis_target_tdata[48*p + 16*c +: 16]});
      end
      gd_next[24*p +: 24] = total[23:0];
      sum_next = sum_next + {{40{total[23]}}, total[23:0]};
      lanes_on = lanes_on + 1;
    end
  end
  wire write = s_axil_awvalid & s_axil_wvalid & !s_axil_bvalid;
  wire read = s_axil_arvalid & !s_axil_rvalid;
  assign s_axil_awready = write; assign s_axil_wready = write; assign s_axil_arready = read;
  assign s_axil_bresp = 0; assign s_axil_rresp = 0;
  reg [31:0] cycles_hi;
  integer k;
  always @(posedge clk) begin
    cycles <= cycles + 1;
    if (m_axis_picture_tready) pv <= 0;
    if (m_axis_gradient_tready) gv <= 0;
    if (fire) begin
      pv <= HASP; gv <= VJP; pd <= pd_next; gd <= gd_next; sum <= sum_next; count <= count + lanes_on;
      pu <= at_start; gu <= at_start; pl <= eol & !FAULT_no_last; gl <= eol; pixels <= pixels + lanes_on;
      x <= eol ? 0 : x + P;
      if (eol) y <= eof ? 0 : y + 1;
      if (eol & !s_axis_raw_tlast) errors[0] <= 1;
      if (!eol & s_axis_raw_tlast) errors[1] <= 1;
      if (at_start != s_axis_raw_tuser) errors[2] <= 1;
      if (FAULT_stuck && y == 2) halted <= 1;
      if (eof) begin
        frames_done <= frames_done + 1;
        in_group <= in_group + 1;
        if (in_group + 1 == active[4]) begin
          in_group <= 0; sum <= 0; count <= 0; result0 <= sum_next; result1 <= count + lanes_on;
          ready <= !FAULT_no_results; finished <= finished + !FAULT_no_results;
          if (ready) errors[10] <= 1;
        end
      end
    end
    if (FAULT_drops_valid & pv & !m_axis_picture_tready & y[0]) pv <= 0;
    if (FAULT_changes_payload & pv & !m_axis_picture_tready & y[0]) pd[3] <= !pd[3];
    if (fire & eof) extra <= FAULT_extra_beat;
    if (extra & pv & m_axis_picture_tready & !fire) begin pv <= 1; extra <= 0; end
    if (pending & at_start & !(pv & !m_axis_picture_tready) & !(gv & !m_axis_gradient_tready)) begin
      pending <= 0;
      if (mem[0] == 0 || mem[0] > 4096 || mem[1] == 0 || mem[1] > 4096 || mem[3] < 8 || mem[3] > 16
          || mem[4] == 0 || mem[2] > 3) errors[9] <= 1;
      else begin live <= 1; for (k = 0; k < 19; k = k + 1) active[k] <= mem[k]; end
    end
    if (s_axil_bready) s_axil_bvalid <= 0;
    if (write) begin
      s_axil_bvalid <= 1;
      if (s_axil_awaddr >= 16'h1000) mem[(s_axil_awaddr - 16'h1000) >> 2] <= s_axil_wdata;
      else case (s_axil_awaddr)
        16'h008: pending <= 1;
        16'h010: errors <= errors & ~s_axil_wdata[15:0];
        16'h02C: ready <= 0;
        default: ;
      endcase
    end
    if (s_axil_rready) s_axil_rvalid <= 0;
    if (read) begin
      s_axil_rvalid <= 1;
      case (s_axil_araddr)
        16'h000: s_axil_rdata <= 32'h4B4C4250;
        16'h004: s_axil_rdata <= 32'h00000100;
        16'h00C: s_axil_rdata <= {29'd0, ready, !at_start, pending};
        16'h010: s_axil_rdata <= {16'd0, errors};
        16'h014: s_axil_rdata <= frames_done;
        16'h018: s_axil_rdata <= pixels[31:0];
        16'h01C: s_axil_rdata <= pixels[63:32];
        16'h020: begin s_axil_rdata <= cycles[31:0]; cycles_hi <= cycles[63:32]; end
        16'h024: s_axil_rdata <= cycles_hi;
        16'h028: s_axil_rdata <= finished;
        16'h030: s_axil_rdata <= {16'd4096, 16'd4096};
        16'h034: s_axil_rdata <= P | VJP << 8 | 1 << 16;
        16'h038: s_axil_rdata <= 19;
        16'h03C: s_axil_rdata <= 2;
        16'h4000: s_axil_rdata <= result0[31:0];
        16'h4004: s_axil_rdata <= result0[63:32];
        16'h4008: s_axil_rdata <= result1[31:0];
        16'h400C: s_axil_rdata <= result1[63:32];
        default: s_axil_rdata <= mem[(s_axil_araddr - 16'h1000) >> 2];
      endcase
    end
    if (rst) begin
      pending <= 0; ready <= 0; live <= 0; halted <= 0; extra <= 0; errors <= 0; finished <= 0;
      frames_done <= 0; in_group <= 0; cycles <= 0; pixels <= 0; sum <= 0; count <= 0; x <= 0; y <= 0;
      pv <= 0; gv <= 0;
      s_axil_bvalid <= 0; s_axil_rvalid <= 0;
    end
  end
  initial begin
    pending = 0; ready = 0; live = 0; halted = 0; extra = 0; errors = 0; finished = 0; frames_done = 0; in_group = 0;
    cycles = 0; pixels = 0; sum = 0; count = 0; x = 0; y = 0; pv = 0; gv = 0; pd = 0; gd = 0;
    pu = 0; pl = 0; gu = 0; gl = 0; result0 = 0; result1 = 0; cycles_hi = 0;
    s_axil_bvalid = 0; s_axil_rvalid = 0; s_axil_rdata = 0;
    for (k = 0; k < 19; k = k + 1) begin mem[k] = 0; active[k] = 0; end
  end
"""
    )
    if vjp:
        code += ["assign s_axis_target_tready = s_axis_raw_tvalid & room & gate & !external & s_axis_target_tvalid;",
                 "assign s_axis_cotangent_tready = s_axis_raw_tvalid & room & gate & external & joined;",
                 "assign m_axis_gradient_tdata = gd; assign m_axis_gradient_tvalid = gv;",
                 "assign m_axis_gradient_tuser = gu; assign m_axis_gradient_tlast = gl;"]  # fmt: skip
    if with_picture:
        code += ["assign m_axis_picture_tdata = pd; assign m_axis_picture_tvalid = pv;",
                 "assign m_axis_picture_tuser = pu; assign m_axis_picture_tlast = pl;"]  # fmt: skip
    code.append("endmodule")
    text = "\n".join(code)
    for name, value in (("VJP", vjp), ("HASP", with_picture)):
        text = text.replace(name, f"1'b{int(value)}")
    for number, name in enumerate(FAULTS):
        text = text.replace(f"FAULT_{name}", f"(active[9] == {number})")
    return text
