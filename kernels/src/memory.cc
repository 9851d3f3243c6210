#include "memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace nvlm {
namespace {
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = 2 << 20;
}  // namespace

Region::Region(size_t bytes, bool hugePages, const char* purpose) {
  if (bytes == 0) return;
  const size_t unit = hugePages && bytes >= kHugePage ? kHugePage : kPage;
  size_ = (bytes + unit - 1) / unit * unit;
  void* address = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    throw CodedError("KERNEL_OUT_OF_MEMORY", std::string(purpose) + ": expected " + std::to_string(bytes) +
                                                 " bytes of memory, received: " + std::strerror(errno));
  }
  data_ = static_cast<uint8_t*>(address);
  if (unit == kHugePage) madvise(data_, size_, MADV_HUGEPAGE);
}

Region::~Region() {
  if (data_) munmap(data_, size_);
}

Region::Region(Region&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const auto fail = [&](const char* action) {
    throw CodedError("KERNEL_WEIGHT_INVALID", path + " cannot be " + action + ": " + std::strerror(errno));
  };
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail("opened");
  struct stat status;
  if (fstat(file, &status) != 0) {
    close(file);
    fail("read");
  }
  size_ = static_cast<size_t>(status.st_size);
  void* address = size_ > 0 ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0) : nullptr;
  close(file);
  if (address == MAP_FAILED) fail("mapped");
  data_ = static_cast<uint8_t*>(address);
}

MappedFile::~MappedFile() {
  if (data_) munmap(data_, size_);
}

void MappedFile::release(size_t offset, size_t bytes) const {
  const size_t begin = (offset + kPage - 1) / kPage * kPage;
  const size_t end = (offset + bytes) / kPage * kPage;
  if (end > begin) madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace nvlm
