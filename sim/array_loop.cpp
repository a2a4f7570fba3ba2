// The clock loop around a verilated array unit: loads operands, writes a programme, runs it, takes what leaves.
// array_model.py compiles this file together with every unit and calls it through ctypes.
//
// Beats are the bits of a payload, lowest first, in whole 32-bit words, as many as the port has; what they mean is
// array_model.py's. No stream stalls here: the bench does that.
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

enum Status : int32_t { kDone = 0, kStuck = 1, kOverflow = 2, kPaused = 3 };

constexpr uint32_t kMoves = 3;  // of the events those that get a job further: row, result

constexpr auto kSlice = std::chrono::milliseconds(200);  // after which a run pauses: Python then sees Ctrl-C

// Shared with array_model.py: keep the two in step.
struct Stream {
    uint32_t* data;  // beats * words of a beat
    uint64_t beats;  // inputs: to give; outputs: room
    uint64_t done;   // out
};

struct Job {
    Stream load, filled, stored, emitted;
    uint32_t* programme;
    uint64_t words;
    uint64_t patience;    // clocks without a beat or an event after which the unit is stuck
    uint64_t cycles;      // out: from go to the end of the last job
    uint32_t counts[8];   // out
    int32_t overflow, clipped;  // out
};

template <class Port>
void put(Port& port, const uint32_t* words) { std::memcpy(&port, words, sizeof(Port)); }
template <class Port>
void get(const Port& port, uint32_t* words) { std::memcpy(words, &port, sizeof(Port)); }
template <class Port>
constexpr uint64_t words_of(const Port&) { return (sizeof(Port) + 3) / 4; }

struct Unit {
    VerilatedContext context;
    std::unique_ptr<Vmodel> top;
    enum Phase { kLoading, kRunning, kIdle } phase = kIdle;
    uint64_t word = 0, idle = 0;

    Unit() : top(new Vmodel(&context)) {}

    void reset() {
        Vmodel& t = *top;
        t.LOAD_VALID = t.FILLED_VALID = t.STORED_READY = t.EMITTED_READY = 0;
        t.write = t.go = t.start = 0;
        t.rst = 1;
        for (int i = 0; i < 2; ++i) settle(), rise();
        t.rst = 0;
        phase = kIdle;
    }

    void settle() { top->clk = 0, top->eval(); }
    void rise() { top->clk = 1, top->eval(); }

    // Operands and words of the programme go in at the same time, then it runs.
    Status run(Job& job, bool fresh) {
        Vmodel& t = *top;
        if (fresh) {
            phase = kLoading, word = idle = 0;
            job.load.done = job.filled.done = job.stored.done = job.emitted.done = job.cycles = 0;
        }
        const auto begin = std::chrono::steady_clock::now();
        for (uint64_t k = 1;; ++k) {
            if (k % 4096 == 0 && std::chrono::steady_clock::now() - begin > kSlice) return kPaused;
            bool moved = false;
            t.write = phase == kLoading && word < job.words;
            if (t.write) {
                t.write_row = word, t.write_data = job.programme[word];
                ++word, moved = true;
            }
            t.LOAD_VALID = job.load.done < job.load.beats;
            if (t.LOAD_VALID) put(t.LOAD, job.load.data + job.load.done * words_of(t.LOAD));
            t.FILLED_VALID = job.filled.done < job.filled.beats;
            if (t.FILLED_VALID) put(t.FILLED, job.filled.data + job.filled.done * words_of(t.FILLED));
            t.go = phase == kLoading && word == job.words && !t.write && job.load.done == job.load.beats;
            t.STORED_READY = t.EMITTED_READY = 1;
            settle();
            if (t.LOAD_VALID && t.LOAD_READY) ++job.load.done, moved = true;
            if (t.FILLED_VALID && t.FILLED_READY) ++job.filled.done, moved = true;
            if (t.STORED_VALID) {
                if (job.stored.done == job.stored.beats) return kOverflow;
                get(t.STORED, job.stored.data + job.stored.done++ * words_of(t.STORED));
                moved = true;
            }
            if (t.EMITTED_VALID) {
                if (job.emitted.done == job.emitted.beats) return kOverflow;
                get(t.EMITTED, job.emitted.data + job.emitted.done++ * words_of(t.EMITTED));
                moved = true;
            }
            const bool went = t.go, ran = phase == kRunning && t.busy;
            const bool ends = phase == kRunning && !t.busy && job.cycles > 1
                              && job.stored.done == job.stored.beats && job.emitted.done == job.emitted.beats;
            idle = moved || (t.events & kMoves) ? 0 : idle + 1;
            rise();
            if (ends) {
                get(t.counts, job.counts);
                job.overflow = t.overflow, job.clipped = t.clipped;
                phase = kIdle;
                return kDone;
            }
            if (idle > job.patience) return kStuck;
            if (ran || went) ++job.cycles;
            if (went) phase = kRunning;
        }
    }
};

}  // namespace

EXPORT void* pullback_new() { return new Unit; }
EXPORT void pullback_delete(void* unit) { delete static_cast<Unit*>(unit); }
EXPORT void pullback_reset(void* unit) { static_cast<Unit*>(unit)->reset(); }
EXPORT uint64_t pullback_job_size() { return sizeof(Job); }
EXPORT int32_t pullback_run(void* unit, Job* job, int32_t fresh) {
    return static_cast<Unit*>(unit)->run(*job, fresh != 0);
}
EXPORT void pullback_words(void* unit, uint64_t* words) {
    const Vmodel& t = *static_cast<Unit*>(unit)->top;
    words[0] = words_of(t.LOAD), words[1] = words_of(t.FILLED);
    words[2] = words_of(t.STORED), words[3] = words_of(t.EMITTED);
}
