// Memory straight from the kernel: regions that cost nothing until touched, and read-only views of files.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace nvlm {

// A failure with one of the stable codes of docs/errors.md.
class CodedError : public std::runtime_error {
 public:
  CodedError(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;
};

// Zero-filled anonymous memory, page aligned. Pages take memory when first written.
class Region {
 public:
  Region() = default;
  // Throws CodedError KERNEL_OUT_OF_MEMORY. `hugePages` asks for large pages: for memory that is streamed through.
  Region(size_t bytes, bool hugePages, const char* purpose);
  ~Region();
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// A whole file, mapped read-only.
class MappedFile {
 public:
  // Throws CodedError KERNEL_WEIGHT_INVALID when the file cannot be opened or mapped.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // Lets go of the pages of a range: they stay in the page cache, but not in this process.
  void release(size_t offset, size_t bytes) const;

 private:
  std::string path_;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace nvlm
