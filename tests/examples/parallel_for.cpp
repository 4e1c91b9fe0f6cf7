// parallel_for.cpp - an engine's own threads run the layer, from C++17 and with fp4moe.h alone.
//
// A random NVFP4 layer is built twice, its experts set by two threads at once: on a context that
// has the library's own pool and on one that is given the Pool below. Two threads then call the
// second layer in a loop, at the same time. Every result must have the bits of the first
// layer's, in every precision class. Exit status 1: it had not, or a call failed.
#include <fp4moe.h>

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

// Threads that serve any number of callers. A caller works on its own job too, so that the job
// ends even when all helpers are busy elsewhere.
class Pool {
public:
  explicit Pool(unsigned helpers) {
    for (unsigned i = 0; i < helpers; i++) threads.emplace_back([this] { help(); });
  }
  Pool(const Pool &) = delete;
  Pool &operator=(const Pool &) = delete;
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      stop = true;
    }
    wake.notify_all();
    for (std::thread &thread : threads) thread.join();
  }

  void run(size_t n, void (*fn)(void *, size_t), void *arg) {
    Job job{fn, arg, n, 0, n};
    std::unique_lock<std::mutex> lock(mutex);
    ran += n;
    if (n != 0) jobs.push_back(&job);
    wake.notify_all();
    while (job.next < n) step(job, lock);
    done.wait(lock, [&] { return job.unfinished == 0; });
  }

  size_t tasks() {
    std::lock_guard<std::mutex> lock(mutex);
    return ran;
  }

private:
  struct Job {
    void (*fn)(void *, size_t);
    void *arg;
    size_t n, next, unfinished;
  };

  // Runs the job's next task, without the lock. The job is its caller's: it may be gone as soon
  // as the last task is counted and the lock is released.
  void step(Job &job, std::unique_lock<std::mutex> &lock) {
    size_t i = job.next++;
    if (job.next == job.n) {
      for (auto it = jobs.begin(); it != jobs.end(); ++it) {
        if (*it != &job) continue;
        jobs.erase(it);
        break;
      }
    }
    lock.unlock();
    job.fn(job.arg, i);
    lock.lock();
    if (--job.unfinished == 0) done.notify_all();
  }

  void help() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      wake.wait(lock, [this] { return stop || !jobs.empty(); });
      if (stop) return;
      step(*jobs.front(), lock);
    }
  }

  std::mutex mutex;
  std::condition_variable wake, done;
  std::deque<Job *> jobs; // those with tasks that nobody has taken
  size_t ran = 0;
  bool stop = false;
  std::vector<std::thread> threads;
};

extern "C" {
// No exception may pass through the library: noexcept.
static void pool_parallel_for(void *pool, size_t n, void (*fn)(void *, size_t),
                              void *arg) noexcept {
  static_cast<Pool *>(pool)->run(n, fn, arg);
}
}

void must(fp4moe_status status) {
  if (status != FP4MOE_OK)
    throw std::runtime_error(std::string(fp4moe_status_name(status)) + ": " +
                             fp4moe_error_detail());
}

struct Destroy {
  void operator()(fp4moe_context *context) const { fp4moe_context_destroy(context); }
  void operator()(fp4moe_layer *layer) const { fp4moe_layer_destroy(layer); }
};
using Context = std::unique_ptr<fp4moe_context, Destroy>;
using Layer = std::unique_ptr<fp4moe_layer, Destroy>;

Context make_context(size_t threads, Pool *pool) {
  fp4moe_context_desc desc{};
  desc.struct_size = sizeof desc;
  desc.max_threads = threads;
  if (pool) desc.parallel_for = pool_parallel_for;
  desc.pool = pool;
  fp4moe_context *context = nullptr;
  must(fp4moe_context_create(&desc, &context));
  return Context(context);
}

constexpr size_t hidden = 256, intermediate = 192, experts = 8, tokens = 48, top_k = 2;
constexpr float global_scale = 0.02f;

// What a checkpoint would hold: [experts][N][K/2] codes and [experts][N][K/16] E4M3 scales.
struct Matrix {
  std::vector<uint8_t> codes, scales;
  size_t rows, columns;

  Matrix(size_t n, size_t k, std::mt19937 &random)
      : codes(experts * n * k / 2), scales(experts * n * k / 16), rows(n), columns(k) {
    for (uint8_t &c : codes) c = static_cast<uint8_t>(random());
    for (uint8_t &s : scales) s = static_cast<uint8_t>(0x28 + random() % 24); // 0.25 to 1.875
  }

  fp4moe_projection expert(size_t e) const {
    fp4moe_projection p{};
    p.codes = &codes[e * rows * columns / 2];
    p.scales = &scales[e * rows * columns / 16];
    p.global = global_scale;
    return p;
  }
};

struct Weights {
  Matrix gate, up, down;
  explicit Weights(std::mt19937 &random)
      : gate(intermediate, hidden, random), up(intermediate, hidden, random),
        down(hidden, intermediate, random) {}
};

Layer make_layer(fp4moe_context *context, fp4moe_precision precision, const Weights &weights) {
  fp4moe_layer_desc desc{};
  desc.struct_size = sizeof desc;
  desc.hidden = hidden;
  desc.intermediate = intermediate;
  desc.experts = experts;
  desc.format = FP4MOE_NVFP4;
  desc.precision = precision;
  desc.activation.kind = FP4MOE_SILU;
  desc.activation.gated = 1;
  fp4moe_layer *begun = nullptr;
  must(fp4moe_layer_begin(context, &desc, &begun));
  Layer layer(begun);

  auto set_every_second = [&](size_t first) {
    for (size_t e = first; e < experts; e += 2) {
      fp4moe_expert_weights expert{};
      expert.struct_size = sizeof expert;
      expert.gate = weights.gate.expert(e);
      expert.up = weights.up.expert(e);
      expert.down = weights.down.expert(e);
      must(fp4moe_layer_set_expert(layer.get(), e, &expert));
    }
  };
  auto odd = std::async(std::launch::async, set_every_second, 1);
  set_every_second(0);
  odd.get();
  must(fp4moe_layer_finish(layer.get()));
  return layer;
}

struct Input {
  std::vector<float> x, weights;
  std::vector<int32_t> ids;

  explicit Input(std::mt19937 &random) : x(tokens * hidden), weights(tokens * top_k, 0.5f) {
    std::normal_distribution<float> normal;
    for (float &v : x) v = normal(random);
    for (size_t t = 0; t < tokens; t++) { // two different experts
      const auto first = static_cast<int32_t>(random() % experts);
      ids.push_back(first);
      ids.push_back((first + 3) % static_cast<int32_t>(experts));
    }
  }
};

// One call of the first m tokens, with a workspace of its own as concurrent calls must have.
std::vector<float> forward(fp4moe_layer *layer, const Input &input, size_t m) {
  fp4moe_limits limits{};
  limits.struct_size = sizeof limits;
  limits.max_tokens = m;
  limits.top_k = top_k;
  std::vector<unsigned char> workspace(fp4moe_workspace_bytes(layer, &limits));
  std::vector<float> y(m * hidden);

  fp4moe_batch batch{};
  batch.struct_size = sizeof batch;
  batch.tokens = m;
  batch.top_k = top_k;
  batch.x = input.x.data();
  batch.x_dtype = FP4MOE_F32;
  batch.y = y.data();
  batch.y_dtype = FP4MOE_F32;
  batch.topk_ids = input.ids.data();
  batch.ids_dtype = FP4MOE_I32;
  batch.topk_weights = input.weights.data();
  must(fp4moe_layer_forward(layer, &batch, workspace.data(), workspace.size()));
  return y;
}

// Calls of all sizes; the number of those whose bits are not the expected ones.
int count_mismatches(fp4moe_layer *layer, const Input &input,
                     const std::vector<std::vector<float>> &expected) {
  int wrong = 0;
  for (size_t m = 1; m <= tokens; m++) {
    const std::vector<float> y = forward(layer, input, m), &want = expected[m - 1];
    wrong += std::memcmp(y.data(), want.data(), y.size() * sizeof(float)) != 0;
  }
  return wrong;
}

int check(fp4moe_precision precision, const char *name, Pool &pool) {
  std::mt19937 random(4);
  const Weights weights(random);
  const Input input(random);
  const Context own = make_context(2, nullptr), engine = make_context(3, &pool);
  const Layer a = make_layer(own.get(), precision, weights);
  const Layer b = make_layer(engine.get(), precision, weights);

  std::vector<std::vector<float>> expected;
  for (size_t m = 1; m <= tokens; m++) expected.push_back(forward(a.get(), input, m));
  const size_t before = pool.tasks();
  auto other =
      std::async(std::launch::async, [&] { return count_mismatches(b.get(), input, expected); });
  int wrong = count_mismatches(b.get(), input, expected);
  wrong += other.get();
  const size_t tasks = pool.tasks() - before;
  std::printf("%s: %d of %zu calls differ, %zu tasks ran in our pool\n", name, wrong, 2 * tokens,
              tasks);
  return wrong != 0 || tasks == 0;
}

} // namespace

int main() try {
  Pool pool(2);
  int bad = check(FP4MOE_PRECISION_F32, "f32", pool);
  bad |= check(FP4MOE_PRECISION_BF16, "bf16", pool);
  bad |= check(FP4MOE_PRECISION_INT8, "int8", pool);
  return bad;
} catch (const std::exception &e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
