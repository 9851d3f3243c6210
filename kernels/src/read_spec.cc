#include "read_spec.h"

namespace nvlm {
namespace {

double number(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) throw Napi::TypeError::New(object.Env(), std::string("expected a number in ") + key);
  return value.As<Napi::Number>().DoubleValue();
}

int integer(const Napi::Object& object, const char* key) { return static_cast<int>(number(object, key)); }

bool flag(const Napi::Object& object, const char* key) { return object.Get(key).ToBoolean(); }

Napi::Array array(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsArray()) throw Napi::TypeError::New(object.Env(), std::string("expected an array in ") + key);
  return value.As<Napi::Array>();
}

std::vector<int> ids(const Napi::Object& object, const char* key) {
  const Napi::Array values = array(object, key);
  std::vector<int> result;
  for (uint32_t i = 0; i < values.Length(); ++i) result.push_back(values.Get(i).ToNumber().Int32Value());
  return result;
}

WeightSpec readWeight(const Napi::Object& object) {
  WeightSpec weight{};
  weight.name = object.Get("name").ToString().Utf8Value();
  weight.type = static_cast<StorageType>(integer(object, "type"));
  weight.rows = static_cast<int64_t>(number(object, "rows"));
  weight.columns = static_cast<int64_t>(number(object, "columns"));
  weight.rotaryHead = integer(object, "rotaryHead");
  weight.path = object.Get("path").ToString().Utf8Value();
  weight.offset = static_cast<uint64_t>(number(object, "offset"));
  weight.byteLength = static_cast<uint64_t>(number(object, "byteLength"));
  if (weight.path.empty()) {
    const auto data = object.Get("data").As<Napi::Uint8Array>();
    weight.data.assign(data.Data(), data.Data() + data.ByteLength());
  }
  return weight;
}

OpSpec readOp(const Napi::Object& object) {
  OpSpec op;
  op.kind = static_cast<OpKind>(integer(object, "kind"));
  op.x = integer(object, "x");
  op.out = integer(object, "out");
  op.residual = integer(object, "residual");
  op.weight = integer(object, "weight");
  op.layer = integer(object, "layer");
  op.eps = static_cast<float>(number(object, "eps"));
  op.scale = static_cast<float>(number(object, "scale"));
  op.magnitude = static_cast<float>(number(object, "magnitude"));
  op.siluMul = flag(object, "siluMul");
  op.gelu = flag(object, "gelu");
  op.causal = flag(object, "causal");
  op.add = flag(object, "add");
  op.bias = integer(object, "bias");
  op.outputScale = integer(object, "outputScale");
  op.meanWidth = integer(object, "meanWidth");
  op.offsets = ids(object, "offsets");
  op.weights = ids(object, "weights");
  op.biases = ids(object, "biases");
  const auto frequencies = object.Get("inverseFrequencies").As<Napi::Float32Array>();
  op.inverseFrequencies.assign(frequencies.Data(), frequencies.Data() + frequencies.ElementLength());
  return op;
}

}  // namespace

ModelSpec readModelSpec(const Napi::Object& description) {
  ModelSpec spec{};
  const Napi::Array weights = array(description, "weights");
  for (uint32_t i = 0; i < weights.Length(); ++i) {
    const Napi::HandleScope scope(description.Env());
    spec.weights.push_back(readWeight(weights.Get(i).As<Napi::Object>()));
  }
  const Napi::Array tensors = array(description, "tensors");
  for (uint32_t i = 0; i < tensors.Length(); ++i) {
    const Napi::HandleScope scope(description.Env());
    const Napi::Object tensor = tensors.Get(i).As<Napi::Object>();
    spec.tensors.push_back({static_cast<RowKind>(integer(tensor, "rows")), integer(tensor, "width")});
  }
  const Napi::Array ops = array(description, "ops");
  for (uint32_t i = 0; i < ops.Length(); ++i) {
    const Napi::HandleScope scope(description.Env());
    spec.ops.push_back(readOp(ops.Get(i).As<Napi::Object>()));
  }
  spec.heads = integer(description, "heads");
  spec.layers = integer(description, "layers");
  spec.kvHeads = integer(description, "kvHeads");
  spec.headSize = integer(description, "headSize");
  spec.vocabularyRows = integer(description, "vocabularyRows");
  spec.validTokens = integer(description, "validTokens");
  spec.partition = integer(description, "partition");
  spec.blockSize = integer(description, "blockSize");
  spec.blockCount = integer(description, "blockCount");
  spec.maxTokens = integer(description, "maxTokens");
  spec.maxSequences = integer(description, "maxSequences");
  spec.maxPositions = integer(description, "maxPositions");
  spec.computeType = static_cast<ComputeType>(integer(description, "computeType"));
  spec.cacheType = static_cast<CacheType>(integer(description, "cacheType"));
  spec.poison = flag(description, "poison");
  return spec;
}

}  // namespace nvlm
