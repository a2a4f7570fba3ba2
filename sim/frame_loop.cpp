// The clock loop around a verilated core: streams, register bus, stalls, watchdog. model.py compiles this file
// together with every core and calls it through ctypes.
//
// It knows streams of beats and words on a bus, nothing of pixels: packing, unpacking and the meaning of the
// registers live in model.py. What a particular core has is written by model.py into ports.h:
//     INPUT(index, name, bytes) and OUTPUT(index, name, bytes) lists, bytes = width of tdata / 8.
//
// One cycle: drive the inputs while the clock is low, settle, look at both sides of every handshake, rise.
// So a handshake is judged on the values right before the edge, and combinational paths from ready to ready or
// from valid to ready are allowed.
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>

#include "Vmodel.h"
#include "verilated.h"

#include "ports.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "beats are copied as bytes: a little-endian host is needed"
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

double sc_time_stamp() { return 0; }  // Verilator asks its driver for the time; nothing here depends on it

namespace {

constexpr int kInputs = 3, kOutputs = 2, kMaxBytes = 128;  // raw, target, cotangent; picture, gradient

enum Status : int32_t {
    kDone = 0, kStuck = 1, kUnstable = 2, kOverflow = 3, kBusStuck = 4, kBusRefused = 5, kPaused = 6
};

constexpr auto kSlice = std::chrono::milliseconds(200);  // after which a run pauses: Python then sees Ctrl-C

constexpr int kReset = 2;  // clocks of a reset: the fewest that a core asks for, and so the hardest

// Shared with model.py: keep the two in step.
struct StreamJob {
    uint8_t* data;      // beats * bytes
    uint8_t* flags;     // one byte a beat: bit 0 tuser, bit 1 tlast
    uint32_t* cycles;   // cycle of each transfer, counted from the start of the run
    uint64_t beats;     // inputs: to send; outputs: to wait for (or room, if the run ends by quiet)
    uint64_t done;      // out: transferred
    double on, off;     // lengths of the bursts of the stall pattern, off = 0: never stall
    int32_t random;     // lengths are means of a geometric distribution, else exact
    int32_t waiting;    // out: bit 0 valid, bit 1 ready in the last cycle
};

struct Job {
    StreamJob in[kInputs];
    StreamJob out[kOutputs];
    uint64_t seed;
    uint64_t patience;        // cycles without a transfer before the watchdog speaks
    uint64_t quiet;           // 0: run until all is done; else: until that many cycles without a transfer
    int64_t* results;         // groups * words
    uint32_t* result_cycles;  // cycle in which a group's last word was read
    uint64_t groups, words;
    uint64_t groups_done;     // out
    uint64_t raw_per_group;   // raw beats of one whole group
    uint64_t raw_first;       // raw beats of this run that complete its first group
    uint64_t out_per_group, out_first;  // the same for the output that is watched for completion
    int32_t watch;            // index of that output
    int32_t fault_stream;     // out: output that broke the protocol
    uint64_t cycles;          // out: cycles that this run took
};

class Random {  // xorshift64*: enough for stall patterns, and the same on every platform
  public:
    void seed(uint64_t value) { m_state = value * 0x9E3779B97F4A7C15ull + 0xD1B54A32D192ED03ull; next(); }
    uint64_t next() {
        m_state ^= m_state >> 12;
        m_state ^= m_state << 25;
        m_state ^= m_state >> 27;
        return m_state * 0x2545F4914F6CDD1Dull;
    }
    double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  private:
    uint64_t m_state = 1;
};

class Pattern {  // bursts of running and stalling cycles
  public:
    void start(const StreamJob& job, uint64_t seed) {
        m_on = job.on, m_off = job.off, m_random = job.random, m_active = job.off > 0;
        m_running = true, m_left = 0;
        m_rng.seed(seed);
        if (m_active) m_left = length(m_on);
    }
    bool active() const { return m_active; }
    bool step() {  // true: may go this cycle
        if (!m_active) return true;
        if (m_left == 0) {
            m_running = !m_running;
            m_left = length(m_running ? m_on : m_off);
        }
        --m_left;
        return m_running;
    }

  private:
    uint64_t length(double mean) {
        if (!m_random) return static_cast<uint64_t>(mean);
        uint64_t n = 1;
        while (n < 64 * mean && m_rng.uniform() * mean >= 1) ++n;
        return n;
    }
    double m_on = 0, m_off = 0;
    bool m_random = false, m_active = false, m_running = true;
    uint64_t m_left = 0;
    Random m_rng;
};

struct Source {
    StreamJob* job = nullptr;
    Pattern pattern;
    bool valid = false;
};

struct Sink {
    StreamJob* job = nullptr;
    Pattern pattern;
    bool ready = false;
    bool held = false;  // the last cycle ended with valid and not ready
    uint8_t data[kMaxBytes], flags = 0;
};

struct Bus {  // one AXI4-Lite transaction at a time
    bool busy = false, writing = false;
    bool address_open = false, data_open = false, refused = false;
    uint16_t address = 0;
    uint32_t data = 0;
    void begin(bool write, uint16_t at, uint32_t value) {
        busy = true, writing = write, refused = false, address_open = true, data_open = write;
        address = at, data = value;
    }
};

constexpr uint16_t kStatus = 0x00C, kAck = 0x02C, kResults = 0x4000;
constexpr uint32_t kResultsReady = 4;

struct Core {
    VerilatedContext context;
    std::unique_ptr<Vmodel> top;
    Source source[kInputs];
    Sink sink[kOutputs];
    Bus bus;
    uint64_t cycle = 0, run_start = 0;
    bool moved = false;      // a stream transferred something in this cycle
    int fault = 0, fault_stream = 0;
    uint64_t raw_limit = ~0ull;

    Core() : top(new Vmodel(&context)) {}

    template <int kBytes, class Port>
    static void put(Port& port, const uint8_t* bytes) {
        static_assert(sizeof(Port) >= kBytes && kBytes <= kMaxBytes, "tdata does not fit");
        std::memcpy(&port, bytes, kBytes);
    }

    template <int kIndex, int kBytes, class Data, class Bit>
    void drive_source(Data& tdata, Bit& tvalid, Bit& tuser, Bit& tlast) {
        Source& s = source[kIndex];
        if (s.valid) return;  // waiting: everything stays as it is
        const bool go = s.job && s.pattern.step() && s.job->done < s.job->beats
                        && (kIndex != 0 || s.job->done < raw_limit);
        if (go) {
            put<kBytes>(tdata, s.job->data + s.job->done * kBytes);
            tuser = s.job->flags[s.job->done] & 1;
            tlast = s.job->flags[s.job->done] >> 1 & 1;
            s.valid = true;
        } else if (tvalid) {  // what stands on the wires between two beats must not matter
            uint8_t* bytes = reinterpret_cast<uint8_t*>(&tdata);
            for (int i = 0; i < kBytes; ++i) bytes[i] = ~bytes[i];
            tuser = !tuser;
            tlast = !tlast;
        }
        tvalid = s.valid;
    }

    template <int kIndex, class Bit>
    void sample_source(const Bit& tready) {
        Source& s = source[kIndex];
        if (!s.job) {  // a beat that an earlier run left on the wires
            if (tready) s.valid = false;
            return;
        }
        s.job->waiting = (s.valid ? 1 : 0) | (tready ? 2 : 0);
        if (s.valid && tready) {
            s.job->cycles[s.job->done++] = static_cast<uint32_t>(cycle - run_start);
            s.valid = false;
            moved = true;
        }
    }

    template <int kIndex, class Bit>
    void drive_sink(Bit& tready) {
        Sink& s = sink[kIndex];
        tready = s.ready = s.job && s.pattern.step();
    }

    template <int kIndex, int kBytes, class Data, class Bit>
    void sample_sink(const Data& tdata, const Bit& tvalid, const Bit& tuser, const Bit& tlast) {
        Sink& s = sink[kIndex];
        const uint8_t flags = (tuser ? 1 : 0) | (tlast ? 2 : 0);
        if (s.held && (!tvalid || flags != s.flags || std::memcmp(&tdata, s.data, kBytes))) {
            fault = kUnstable, fault_stream = kIndex;
        }
        s.held = tvalid && !s.ready;
        if (s.held) {
            std::memcpy(s.data, &tdata, kBytes);
            s.flags = flags;
        }
        if (!s.job) return;
        s.job->waiting = (tvalid ? 1 : 0) | (s.ready ? 2 : 0);
        if (tvalid && s.ready) {
            if (s.job->done == s.job->beats) {
                fault = kOverflow, fault_stream = kIndex;
                return;
            }
            std::memcpy(s.job->data + s.job->done * kBytes, &tdata, kBytes);
            s.job->flags[s.job->done] = flags;
            s.job->cycles[s.job->done++] = static_cast<uint32_t>(cycle - run_start);
            moved = true;
        }
    }

    void clock() {
        Vmodel& t = *top;
        moved = false;
#define INPUT(index, name, bytes)                                                                    \
    drive_source<index, bytes>(t.s_axis_##name##_tdata, t.s_axis_##name##_tvalid, t.s_axis_##name##_tuser, \
                               t.s_axis_##name##_tlast);
#define OUTPUT(index, name, bytes) drive_sink<index>(t.m_axis_##name##_tready);
        INPUTS OUTPUTS
#undef INPUT
#undef OUTPUT
        t.s_axil_awvalid = bus.busy && bus.writing && bus.address_open;
        t.s_axil_wvalid = bus.busy && bus.writing && bus.data_open;
        t.s_axil_bready = bus.busy && bus.writing;
        t.s_axil_arvalid = bus.busy && !bus.writing && bus.address_open;
        t.s_axil_rready = bus.busy && !bus.writing;
        t.s_axil_awaddr = t.s_axil_araddr = bus.address;
        t.s_axil_wdata = bus.data;
        t.clk = 0;
        t.eval();
#define INPUT(index, name, bytes) sample_source<index>(t.s_axis_##name##_tready);
#define OUTPUT(index, name, bytes)                                                                   \
    sample_sink<index, bytes>(t.m_axis_##name##_tdata, t.m_axis_##name##_tvalid, t.m_axis_##name##_tuser, \
                              t.m_axis_##name##_tlast);
        INPUTS OUTPUTS
#undef INPUT
#undef OUTPUT
        if (bus.busy) sample_bus(t);
        t.clk = 1;
        t.eval();
        ++cycle;
    }

    void sample_bus(Vmodel& t) {
        if (bus.writing) {
            if (t.s_axil_awready) bus.address_open = false;
            if (t.s_axil_wready) bus.data_open = false;
            if (t.s_axil_bvalid) bus.busy = false, bus.refused = t.s_axil_bresp != 0;
        } else {
            if (t.s_axil_arready) bus.address_open = false;
            if (t.s_axil_rvalid) bus.busy = false, bus.refused = t.s_axil_rresp != 0, bus.data = t.s_axil_rdata;
        }
    }

    Status transact(bool write, uint16_t address, uint32_t& data) {
        bus.begin(write, address, data);
        for (int i = 0; i < 100000 && bus.busy; ++i) clock();
        data = bus.data;
        if (bus.busy) {
            bus.busy = false;
            return kBusStuck;
        }
        return bus.refused ? kBusRefused : kDone;
    }

    void reset() {
        Vmodel& t = *top;
        for (Source& s : source) s = Source();
        for (Sink& s : sink) s = Sink();
        bus = Bus();
#define INPUT(index, name, bytes) t.s_axis_##name##_tvalid = 0;
#define OUTPUT(index, name, bytes)
        INPUTS
#undef INPUT
#undef OUTPUT
        t.s_axil_wstrb = 15;
        t.rst = 1;
        for (int i = 0; i < kReset; ++i) clock();
        for (Sink& s : sink) s = Sink();
        t.rst = 0;
    }

    Status run(Job& job, bool fresh) {
        if (fresh) start(job);
        const Status status = loop(job);
        if (status == kPaused) return status;
        for (Source& s : source) s.job = nullptr;
        for (Sink& s : sink) s.job = nullptr;
        bus.busy = false;
        raw_limit = ~0ull;
        job.cycles = cycle - run_start;
        job.fault_stream = fault_stream;
        return status;
    }

  private:
    enum Reading { kIdle, kPoll, kLow, kHigh, kRelease };
    Reading reading = kIdle;
    uint64_t word = 0, idle = 0;
    uint32_t low = 0;

    void start(Job& job) {
        run_start = cycle;
        fault = kDone;
        reading = kIdle;
        idle = 0;
        job.groups_done = 0;
        for (int i = 0; i < kInputs; ++i) {
            source[i].job = job.in[i].data ? &job.in[i] : nullptr;
            if (source[i].job) source[i].pattern.start(job.in[i], job.seed * 16 + i);
        }
        for (int i = 0; i < kOutputs; ++i) {
            sink[i].job = job.out[i].data ? &job.out[i] : nullptr;
            if (sink[i].job) sink[i].pattern.start(job.out[i], job.seed * 16 + 8 + i);
        }
    }

    Status loop(Job& job) {
        const auto deadline = std::chrono::steady_clock::now() + kSlice;
        for (uint64_t n = 1;; ++n) {
            // The core keeps one finished group while the next one runs. So the last beat of a group waits until
            // the group before it has been fetched; nothing is ever overrun, and long frames never wait.
            raw_limit = job.groups_done + 1 < job.groups
                            ? job.raw_first + job.raw_per_group * (job.groups_done + 1) - 1 : ~0ull;
            clock();
            if (fault) return static_cast<Status>(fault);
            const bool fetched = fetch_results(job);
            idle = moved || fetched ? 0 : idle + 1;
            if (bus.refused) return kBusRefused;
            if (job.quiet) {
                if (idle >= job.quiet && reading == kIdle) return kDone;
            } else {
                bool done = job.groups_done == job.groups;
                for (const StreamJob& s : job.in) done = done && s.done == s.beats;
                for (const StreamJob& s : job.out) done = done && s.done == s.beats;
                if (done) return linger();
            }
            if (idle > job.patience) return kStuck;
            if ((n & 0xFFF) == 0 && std::chrono::steady_clock::now() > deadline) return kPaused;
        }
    }

    // A beat too many would come right now.
    Status linger() {
        for (int i = 0; i < 16; ++i) {
            clock();
            if (fault) return static_cast<Status>(fault);
        }
        return kDone;
    }

    // Looks after the results of one group: wait, read its words, acknowledge. True when it got on.
    bool fetch_results(Job& job) {
        if (reading == kIdle) {
            if (job.groups_done < job.groups
                && job.out[job.watch].done >= job.out_first + job.out_per_group * job.groups_done) {
                reading = kPoll;
                bus.begin(false, kStatus, 0);
            }
            return false;
        }
        if (bus.busy) return false;
        switch (reading) {
        case kPoll:
            if (!(bus.data & kResultsReady)) {
                bus.begin(false, kStatus, 0);
                return false;
            }
            reading = kLow;
            word = 0;
            bus.begin(false, kResults, 0);
            return true;
        case kLow:
            low = bus.data;
            reading = kHigh;
            bus.begin(false, kResults + 8 * word + 4, 0);
            return true;
        case kHigh:
            job.results[job.groups_done * job.words + word]
                = static_cast<int64_t>(static_cast<uint64_t>(bus.data) << 32 | low);
            if (++word < job.words) {
                reading = kLow;
                bus.begin(false, kResults + 8 * word, 0);
            } else {
                reading = kRelease;
                bus.begin(true, kAck, 1);
            }
            return true;
        default:
            job.result_cycles[job.groups_done++] = static_cast<uint32_t>(cycle - run_start);
            reading = kIdle;
            return true;
        }
    }
};

}  // namespace

EXPORT void* pullback_new() { return new Core(); }
EXPORT void pullback_delete(void* core) { delete static_cast<Core*>(core); }
EXPORT void pullback_reset(void* core) { static_cast<Core*>(core)->reset(); }
EXPORT uint64_t pullback_job_size() { return sizeof(Job); }

EXPORT void pullback_clock(void* core, uint64_t cycles) {
    while (cycles--) static_cast<Core*>(core)->clock();
}

EXPORT int32_t pullback_read(void* core, uint16_t address, uint32_t* data) {
    return static_cast<Core*>(core)->transact(false, address, *data);
}

// Stops at the first write that is not answered OKAY and leaves its index in `done`.
EXPORT int32_t pullback_write(void* core, const uint16_t* addresses, const uint32_t* data, uint64_t count,
                              uint64_t* done) {
    for (*done = 0; *done < count; ++*done) {
        uint32_t value = data[*done];
        const Status status = static_cast<Core*>(core)->transact(true, addresses[*done], value);
        if (status != kDone) return status;
    }
    return kDone;
}

// kPaused: call again with fresh = 0.
EXPORT int32_t pullback_run(void* core, Job* job, int32_t fresh) {
    return static_cast<Core*>(core)->run(*job, fresh);
}
