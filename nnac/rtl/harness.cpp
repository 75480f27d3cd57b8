// The memories of the core, cycle by cycle, and the log of what starts and what is done.  Included after `ports.h`, which defines
// `Model` (get_NAME or copy_NAME, set_NAME or put_NAME, edge, settle) for one simulator and the sizes of the machine.
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

struct Memories {                // shared with the caller
  uint8_t *a, *dram, *ring;
  uint32_t *w;                   // rows of W_WORDS: index in the low half of the first, then weights
  int16_t *lut;
  uint32_t *table;
  uint64_t a_bytes, dram_bytes;
};

struct Event { uint64_t cycle; uint32_t kind, value; };   // kind: 0 started, 1 finished (masks by unit), 2 mark, 3 host

typedef int (*HostCall)(uint32_t part);

struct Machine {
  Model model;
  Memories mem;
  std::vector<Event> events;
  uint64_t cycles = 0, total = 0;
  double seconds = 0;
};

static inline void copy_in(uint8_t *to, const uint8_t *memory, int64_t at, int64_t bytes, int64_t size) {
  // bytes beyond the memory read as zero: ports are wider than what is asked of them
  if (at >= 0 && at + bytes <= size) { memcpy(to, memory + at, bytes); return; }
  for (int64_t k = 0; k < bytes; k++) to[k] = at + k >= 0 && at + k < size ? memory[at + k] : 0;
}

// write words of 4 bytes; word addresses wrap at 2^18 (a burst may begin before the first word that its mask lets through)
static inline int put_words(uint8_t *memory, int64_t first, uint64_t mask, const uint8_t *from, int64_t size, int64_t wrap) {
  for (int k = 0; mask; k++, mask >>= 1)
    if (mask & 1) {
      int64_t at = (first + k) % wrap * 4;
      if (at + 4 > size) return 1;
      memcpy(memory + at, from + 4 * k, 4);
    }
  return 0;
}

static inline uint32_t bits_at(const uint8_t *from, int at, int bits) {
  uint64_t v;
  memcpy(&v, from + at / 32 * 4, 8);                          // buffers have 8 bytes to spare
  return (v >> (at & 31)) & ((1u << bits) - 1);
}

extern "C" {

Machine *core_new() { auto *m = new Machine; m->model.reset(); return m; }
#if VM_COVERAGE
void core_delete(Machine *m) {}               // its counts are read at the end
void core_coverage(const char *path) { Verilated::threadContextp()->coveragep()->write(path); }
#else
void core_delete(Machine *m) { delete m; }
#endif
#ifdef MUTANTS
void core_mutant(Machine *m, uint32_t k) { m->model.set_mutant(k); }
#endif
void core_memories(Machine *m, Memories *memories) { m->mem = *memories; }
uint64_t core_events(Machine *m, Event **at) { *at = m->events.data(); return m->events.size(); }
uint64_t core_cycles(Machine *m) { return m->total; }
double core_seconds(Machine *m) { return m->seconds; }

// Run one entry of n instructions of 16 bytes.  `minded`: the errors that stop it.  0 halted, 1 the limit came first, 2 the core reports an error, 3 an address beyond its memory.
int core_run(Machine *m, const uint8_t *code, uint32_t n, uint64_t limit, uint32_t minded, HostCall host) {
  Model &d = m->model;
  Memories &mem = m->mem;
  m->events.clear();
  auto begun = std::chrono::steady_clock::now();
  int status = 1;
  // buffers of the ports, in whole 32-bit words
  alignas(8) uint8_t burst[BURST], moved[BURST], a_row[BURST], row[4 * W_WORDS], w_row[4 * W_WORDS], window[WINDOW + 4], lane[3][LANES],
      write[LANES], acts[COLUMNS * 2 + 4], mv_addr[(20 * COLUMNS + 31) / 32 * 4 + 8], lut_addr[(26 * VECTOR + 31) / 32 * 4 + 8], lut_data[8 * VECTOR],
      lut_write[LANES], table_addr[(13 * LANES + 31) / 32 * 4 + 8], table_data[4 * LANES], table_write[16], nothing[16] = {0};
  d.set_go(1);
  bool going = true;
  uint64_t cycle = 0;
  for (; cycle < limit; ) {
    d.settle();
    if (!going) {
      if (d.get_error() & minded) { status = 2; break; }
      if (d.get_halted()) { status = 0; break; }
      uint32_t started = d.get_started(), finished = d.get_finished();
      if (started) m->events.push_back({cycle, 0, started});
      if (finished) m->events.push_back({cycle, 1, finished});
      if (d.get_mark()) m->events.push_back({cycle, 2, (uint32_t)d.get_mark_id()});
      if (d.get_host()) {
        m->events.push_back({cycle, 3, (uint32_t)d.get_host_id()});
        if (host && host(d.get_host_id())) { status = 4; break; }
      }
    }
    // ---- what the memories see in this cycle
    uint64_t pc = d.get_imem_addr();
    int64_t dram_at = (int64_t)d.get_dram_addr() * BURST;
    copy_in(burst, mem.dram, dram_at, BURST, mem.dram_bytes);
    if (uint64_t mask = d.get_dram_mask()) {
      d.copy_dram_wdata(moved);
      if (put_words(mem.dram, dram_at / 4, mask, moved, mem.dram_bytes, 1ll << 40)) { status = 3; break; }
    }
    // reads come before writes: data are what the memory held in this cycle
    copy_in(a_row, mem.a, (int64_t)d.get_da_raddr() * 4, BURST, mem.a_bytes);
    copy_in(lane[0], mem.a, (int64_t)d.get_vx_raddr0() * 4, LANES, mem.a_bytes);
    copy_in(lane[1], mem.a, (int64_t)d.get_vx_raddr1() * 4, LANES, mem.a_bytes);
    copy_in(lane[2], mem.a, (int64_t)d.get_vx_raddr2() * 4, LANES, mem.a_bytes);
    d.copy_mv_addr(mv_addr);
    for (int k = 0; k < COLUMNS; k++) copy_in(acts + 2 * k, mem.a, bits_at(mv_addr, 20 * k, 20), 2, mem.a_bytes);
    uint64_t w_at = d.get_w_addr();
    if (w_at < WORDS) memcpy(row, mem.w + w_at * W_WORDS, 4 * W_WORDS);
    uint64_t ring_at = d.get_ring_addr() % RING;
    if (ring_at + WINDOW <= RING) memcpy(window, mem.ring + ring_at, WINDOW);
    else for (int k = 0; k < WINDOW; k++) window[k] = mem.ring[(ring_at + k) % RING];
    d.copy_lut_addr(lut_addr);
    for (int k = 0; k < 2 * VECTOR; k++) {
      uint32_t at = bits_at(lut_addr, 13 * k, 13), index = at & 1023;
      memcpy(lut_data + 4 * k, mem.lut + 513 * (at >> 10) + (index < 512 ? index : 511), 4);
    }
    d.copy_table_addr(table_addr);
    for (int k = 0; k < LANES; k++) memcpy(table_data + 4 * k, mem.table + bits_at(table_addr, 13 * k, 13), 4);

    if (uint64_t mask = d.get_da_mask()) {
      d.copy_da_wdata(moved);
      if (put_words(mem.a, d.get_da_waddr(), mask, moved, mem.a_bytes, 1 << 18)) { status = 3; break; }
    }
    if (uint64_t mask = d.get_vx_mask()) {
      d.copy_vx_wdata(write);
      int64_t at = d.get_vx_waddr() * 4;
      for (int k = 0; mask; k++, mask >>= 1)
        if (mask & 1) {
          if (at + k >= (int64_t)mem.a_bytes) { status = 3; break; }
          mem.a[at + k] = write[k];
        }
      if (status == 3) break;
    }
    if (uint64_t mask = d.get_ring_mask()) {
      d.copy_ring_wdata(moved);
      int64_t at = d.get_ring_waddr();
      for (int k = 0; mask; k++, mask >>= 1)
        if (mask & 1) memcpy(mem.ring + (at + k) * 16 % RING, moved + 16 * k, 16);
    }
    if (d.get_w_write()) {
      uint64_t at = d.get_w_waddr();
      d.copy_w_wdata(w_row);
      if (at >= WORDS) { status = 3; break; }
      memcpy(mem.w + at * W_WORDS, w_row, 4 * W_WORDS);
    }
    if (uint64_t mask = d.get_lut_mask()) {
      d.copy_lut_wdata(lut_write);
      uint32_t at = d.get_lut_waddr();
      for (uint32_t k = 0; mask; k++, mask >>= 1)
        if (mask & 1) memcpy(mem.lut + 513 * (at >> 10) + (at & 1023) + k, lut_write + 2 * k, 2);
    }
    if (d.get_table_write()) {
      // two states at a time, of the weights' and of the blocks' machine: [table][machine][state]
      d.copy_table_wdata(table_write);
      uint32_t at = d.get_table_waddr();
      for (int machine = 0; machine < 2; machine++)
        for (int k = 0; k < 2; k++) memcpy(mem.table + ((at >> 10) << 11 | machine << 10 | (at & 1023)) + k, table_write + 8 * machine + 4 * k, 4);
    }
    // the registers behind the data ports take them at the edge
    d.put_imem_data(pc < n ? code + 16 * pc : nothing);
    d.put_dram_data(burst);
    d.put_da_rdata(a_row);
    d.put_vx_rdata0(lane[0]);
    d.put_vx_rdata1(lane[1]);
    d.put_vx_rdata2(lane[2]);
    d.put_mv_data(acts);
    d.put_w_data(row);
    d.put_ring_data(window);
    d.put_lut_data(lut_data);
    d.put_table_data(table_data);
    d.edge();
    d.set_go(0);
    if (!going) cycle++;
    going = false;
  }
  d.set_go(0);
  m->cycles = cycle;
  m->total += cycle;
  m->seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return status;
}

// 48-bit accumulators as int64 [banks, columns, lanes], read through the core's port
void core_accumulators(Machine *m, int64_t *out) {
  Model &d = m->model;
  alignas(8) uint8_t data[6 * VECTOR + 8];
  for (uint32_t bank = 0; bank < BANKS; bank++)
    for (uint32_t column = 0; column < COLUMNS; column++)
      for (uint32_t group = 0; group < GROUPS; group++) {
        d.set_debug(1);
        d.set_debug_acc(group | column << GROUP_BITS | bank << (GROUP_BITS + COLUMN_BITS));
        d.settle();
        d.edge();                     // the core is at rest: nothing else moves
        d.settle();
        d.copy_acc_data(data);
        for (uint32_t k = 0; k < VECTOR; k++) {
          uint64_t v = 0;
          memcpy(&v, data + 6 * k, 6);
          *out++ = (int64_t)(v << 16) >> 16;
        }
      }
  d.set_debug(0);
}

}
