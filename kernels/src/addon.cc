// The face of the kernels towards JavaScript: two classes and five functions. kernels/cpu.ts validates everything before it
// comes here; no call blocks the event loop for longer than a copy of a step's inputs.
#include <napi.h>

#include "cpu/dispatch.h"
#include "image/resample.h"
#include "peak.h"
#include "read_spec.h"
#include "runner.h"

namespace nvlm {
namespace {

Napi::Error toJavaScript(Napi::Env env, const CodedError& error) {
  Napi::Error converted = Napi::Error::New(env, error.what());
  converted.Set("code", error.code());
  return converted;
}

// --- Model: new Model(description, isa); load(): Promise; progress(); weightBytes; cacheBytes; close() -----------------------

class ModelObject : public Napi::ObjectWrap<ModelObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Model",
                       {InstanceMethod<&ModelObject::load>("load"), InstanceMethod<&ModelObject::progress>("progress"),
                        InstanceMethod<&ModelObject::close>("close"),
                        InstanceAccessor<&ModelObject::weightBytes>("weightBytes"),
                        InstanceAccessor<&ModelObject::cacheBytes>("cacheBytes")});
  }

  explicit ModelObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelObject>(info) {
    const KernelTable* kernels = kernelsOf(info[1].ToString().Utf8Value());
    if (!kernels) throw Napi::Error::New(info.Env(), "this machine cannot run that instruction-set path");
    model_ = std::make_shared<Model>(readModelSpec(info[0].As<Napi::Object>()), kernels);
  }

  const std::shared_ptr<Model>& model() const { return model_; }

 private:
  class Loading : public Napi::AsyncWorker {
   public:
    Loading(Napi::Env env, std::shared_ptr<Model> model)
        : Napi::AsyncWorker(env), model_(std::move(model)), deferred_(env) {}
    Napi::Promise promise() const { return deferred_.Promise(); }

   protected:
    void Execute() override {
      try {
        model_->load();
      } catch (const CodedError& error) {
        code_ = error.code();
        SetError(error.what());
      } catch (const std::exception& error) {
        code_ = "KERNEL_OUT_OF_MEMORY";
        SetError(error.what());
      }
    }
    void OnOK() override { deferred_.Resolve(Env().Undefined()); }
    void OnError(const Napi::Error& error) override {
      deferred_.Reject(toJavaScript(Env(), CodedError(code_, error.Message())).Value());
    }

   private:
    std::shared_ptr<Model> model_;
    Napi::Promise::Deferred deferred_;
    const char* code_ = "";
  };

  Napi::Value load(const Napi::CallbackInfo& info) {
    auto* loading = new Loading(info.Env(), model_);
    loading->Queue();
    return loading->promise();
  }
  Napi::Value progress(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), model_ ? model_->progress() : 1); }
  Napi::Value weightBytes(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), model_ ? static_cast<double>(model_->weightBytes()) : 0);
  }
  Napi::Value cacheBytes(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), model_ ? static_cast<double>(model_->cacheBytes()) : 0);
  }
  void close(const Napi::CallbackInfo&) { model_.reset(); }

  // Runners and loads in flight hold it too: the memory goes when the last of them does.
  std::shared_ptr<Model> model_;
};

// --- Runner: new Runner(model, threads); run(inputs, outputs): Promise; close() ---------------------------------------------

// The promise of a step in flight and the objects it writes into.
struct Flight {
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference inputRows;  // read where they are: megabytes
  Napi::ObjectReference outputs;
  Napi::ObjectReference runner;
};

template <class Element>
void copyArray(const Napi::Object& inputs, const char* key, std::vector<Element>* out) {
  const auto values = inputs.Get(key).As<Napi::TypedArrayOf<Element>>();
  out->assign(values.Data(), values.Data() + values.ElementLength());
}

template <class Element>
Element* arrayData(const Napi::Object& outputs, const char* key) {
  return outputs.Get(key).As<Napi::TypedArrayOf<Element>>().Data();
}

class RunnerObject : public Napi::ObjectWrap<RunnerObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Runner",
                       {InstanceMethod<&RunnerObject::run>("run"), InstanceMethod<&RunnerObject::close>("close")});
  }

  explicit RunnerObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RunnerObject>(info) {
    const auto& model = ModelObject::Unwrap(info[0].As<Napi::Object>())->model();
    if (!model) throw Napi::Error::New(info.Env(), "the model is closed");
    notify_ = Notify::New(info.Env(), "nvlm step", 0, 1, this);
    // Keeps the process alive only while a step is in flight.
    notify_.Unref(info.Env());
    try {
      runner_ = std::make_unique<Runner>(model, info[1].ToNumber().Int32Value(), [this] { notify_.NonBlockingCall(); });
    } catch (const CodedError& error) {
      notify_.Release();
      throw toJavaScript(info.Env(), error);
    } catch (const std::exception& error) {
      // std::system_error: the machine gives no more threads.
      notify_.Release();
      throw toJavaScript(info.Env(), CodedError("KERNEL_OUT_OF_MEMORY", std::string("runner: ") + error.what()));
    }
    // An environment that ends calls the hooks in reverse order and finalizers last: the threads must be gone before the
    // hook of the thread-safe function frees it, also with a step in flight.
    napi_add_env_cleanup_hook(info.Env(), endOfEnvironment, this);
  }

  ~RunnerObject() override { stop(Env()); }

 private:
  static void finished(Napi::Env env, Napi::Function, RunnerObject* self, void*) {
    // Without an environment the promise has nobody left to hear of it.
    if (env == nullptr) return;
    self->settle(env);
  }
  using Notify = Napi::TypedThreadSafeFunction<RunnerObject, void, &RunnerObject::finished>;

  void settle(Napi::Env env) {
    const Napi::HandleScope scope(env);
    const std::unique_ptr<Flight> flight = std::move(flight_);
    if (!flight) return;
    notify_.Unref(env);
    flight->deferred.Resolve(env.Undefined());
  }

  static void endOfEnvironment(void* self) {
    auto* object = static_cast<RunnerObject*>(self);
    object->stop(object->Env());
    object->flight_.reset();
  }

  void stop(napi_env env) {
    if (!runner_) return;
    runner_.reset();
    notify_.Release();
    napi_remove_env_cleanup_hook(env, endOfEnvironment, this);
  }

  Napi::Value run(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!runner_ || flight_) throw Napi::Error::New(env, "the runner is closed or busy");
    const auto in = info[0].As<Napi::Object>();
    const auto out = info[1].As<Napi::Object>();
    StepInputs& step = runner_->inputs;
    copyArray(in, "tokenIds", &step.tokenIds);
    copyArray(in, "positions", &step.positions);
    copyArray(in, "slotMapping", &step.slotMapping);
    copyArray(in, "cuSeqlensQ", &step.cuSeqlensQ);
    copyArray(in, "seqLens", &step.seqLens);
    copyArray(in, "blockTables", &step.blockTables);
    copyArray(in, "logitRows", &step.logitRows);
    step.maxBlocks = in.Get("maxBlocksPerSequence").ToNumber().Int32Value();
    step.inputTargets.clear();
    step.inputRows = nullptr;
    Napi::ObjectReference inputRows;
    if (in.Get("inputTargets").IsTypedArray() && in.Get("inputRows").IsTypedArray()) {
      copyArray(in, "inputTargets", &step.inputTargets);
      step.inputRows = arrayData<float>(in, "inputRows");
      inputRows = Napi::Persistent(in.Get("inputRows").As<Napi::Object>());
    }
    if (in.Get("sampling").IsObject()) copySampling(in.Get("sampling").As<Napi::Object>(), &step);

    StepOutputs& results = runner_->outputs;
    results = {};
    results.tokenIds = arrayData<int32_t>(out, "tokenIds");
    results.logprobs = arrayData<float>(out, "logprobs");
    results.topIds = arrayData<int32_t>(out, "topIds");
    results.topLogprobs = arrayData<float>(out, "topLogprobs");
    results.maxTop = out.Get("maxTop").ToNumber().Int32Value();
    if (out.Get("logits").IsTypedArray()) results.logits = arrayData<float>(out, "logits");
    if (out.Get("tensors").IsArray()) {
      const auto tensors = out.Get("tensors").As<Napi::Array>();
      const auto ids = in.Get("wantTensors").As<Napi::Array>();
      for (uint32_t i = 0; i < tensors.Length(); ++i) {
        results.tensors.push_back({ids.Get(i).ToNumber().Int32Value(), tensors.Get(i).As<Napi::Float32Array>().Data()});
      }
    }

    auto flight = std::make_unique<Flight>(
        Flight{Napi::Promise::Deferred::New(env), std::move(inputRows), Napi::Persistent(out), Napi::Persistent(info.This().As<Napi::Object>())});
    const Napi::Promise promise = flight->deferred.Promise();
    try {
      // The one part that may need memory: scratch of a step longer than any before.
      notify_.Ref(env);
      flight_ = std::move(flight);
      runner_->start();
    } catch (const CodedError& error) {
      notify_.Unref(env);
      flight_.reset();
      throw toJavaScript(env, error);
    }
    return promise;
  }

  static void copySampling(const Napi::Object& in, StepInputs* step) {
    copyArray(in, "temperature", &step->temperature);
    copyArray(in, "topK", &step->topK);
    copyArray(in, "topP", &step->topP);
    copyArray(in, "minP", &step->minP);
    copyArray(in, "repetitionPenalty", &step->repetitionPenalty);
    copyArray(in, "presencePenalty", &step->presencePenalty);
    copyArray(in, "frequencyPenalty", &step->frequencyPenalty);
    copyArray(in, "seed", &step->seed);
    copyArray(in, "position", &step->position);
    copyArray(in, "seenOffsets", &step->seenOffsets);
    copyArray(in, "seenIds", &step->seenIds);
    copyArray(in, "seenCounts", &step->seenCounts);
    copyArray(in, "biasOffsets", &step->biasOffsets);
    copyArray(in, "biasIds", &step->biasIds);
    copyArray(in, "biasValues", &step->biasValues);
    copyArray(in, "logprobs", &step->wantLogprobs);
    step->allowedMask.clear();
    if (in.Get("allowedMask").IsTypedArray()) copyArray(in, "allowedMask", &step->allowedMask);
  }

  void close(const Napi::CallbackInfo& info) { stop(info.Env()); }

  std::unique_ptr<Runner> runner_;
  Notify notify_;
  std::unique_ptr<Flight> flight_;
};

Napi::Value availableIsas(const Napi::CallbackInfo& info) {
  const std::vector<std::string> names = availablePaths();
  Napi::Array result = Napi::Array::New(info.Env(), names.size());
  for (uint32_t i = 0; i < names.size(); ++i) result.Set(i, names[i]);
  return result;
}

// (blockSize, kvHeads, headSize, cacheType): bytes of one block of one layer.
Napi::Value blockBytes(const Napi::CallbackInfo& info) {
  const auto integer = [&](size_t i) { return info[i].ToNumber().Int32Value(); };
  const int64_t bytes = cacheBlockBytes(integer(0), integer(1), integer(2), static_cast<CacheType>(integer(3)));
  return Napi::Number::New(info.Env(), static_cast<double>((bytes + 63) / 64 * 64));
}

// (isa, threads): what the machine gives at most, measured now; blocks for about half a second.
Napi::Value measurePeak(const Napi::CallbackInfo& info) {
  const KernelTable* kernels = kernelsOf(info[0].ToString().Utf8Value());
  if (!kernels) throw Napi::Error::New(info.Env(), "this machine cannot run that instruction-set path");
  const Peaks peaks = measurePeaks(*kernels, info[1].ToNumber().Int32Value());
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("readBytes", peaks.readBytes);
  result.Set("float32", peaks.float32);
  result.Set("bfloat16", peaks.bfloat16);
  result.Set("int8", peaks.int8);
  return result;
}

// info[at ..]: taps, first, count, weights, out. kernels/resample.ts has checked them.
ResampleAxis readAxis(const Napi::CallbackInfo& info, size_t at) {
  const auto numbers = [&](size_t i) { return info[i].As<Napi::Int32Array>(); };
  return {static_cast<int64_t>(numbers(at + 1).ElementLength()), info[at].ToNumber().Int64Value(), numbers(at + 1).Data(),
          numbers(at + 2).Data(), numbers(at + 3).Data()};
}

// (source, width, rows, taps, first, count, weights, out)
void resampleRowsOf(const Napi::CallbackInfo& info) {
  resampleRows(info[0].As<Napi::Uint8Array>().Data(), info[1].ToNumber().Int64Value(), info[2].ToNumber().Int64Value(),
               readAxis(info, 3), info[7].As<Napi::Uint8Array>().Data());
}

// (source, width, taps, first, count, weights, out)
void resampleColumnsOf(const Napi::CallbackInfo& info) {
  resampleColumns(info[0].As<Napi::Uint8Array>().Data(), info[1].ToNumber().Int64Value(), readAxis(info, 2),
                  info[6].As<Napi::Uint8Array>().Data());
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("Model", ModelObject::define(env));
  exports.Set("Runner", RunnerObject::define(env));
  exports.Set("availableIsas", Napi::Function::New(env, availableIsas));
  exports.Set("blockBytes", Napi::Function::New(env, blockBytes));
  exports.Set("measurePeak", Napi::Function::New(env, measurePeak));
  exports.Set("resampleRows", Napi::Function::New<resampleRowsOf>(env));
  exports.Set("resampleColumns", Napi::Function::New<resampleColumnsOf>(env));
  return exports;
}

}  // namespace
}  // namespace nvlm

static Napi::Object initializeAddon(Napi::Env env, Napi::Object exports) { return nvlm::initialize(env, exports); }
NODE_API_MODULE(nvlm, initializeAddon)
