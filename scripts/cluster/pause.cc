// The process that holds a pod's namespaces open: sleeps for ever, without a C library. The runtime ends it with SIGKILL.
extern "C" [[noreturn]] void _start() {
  for (;;) {
#if defined(__x86_64__)
    long result = 34;  // pause
    asm volatile("syscall" : "+a"(result) : : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long number asm("x8") = 73;  // ppoll(nullptr, 0, nullptr, nullptr, 0)
    register long first asm("x0") = 0;
    register long second asm("x1") = 0;
    register long third asm("x2") = 0;
    register long fourth asm("x3") = 0;
    asm volatile("svc 0" : "+r"(first) : "r"(number), "r"(second), "r"(third), "r"(fourth) : "memory");
#else
#error "a node runs on x86-64 or arm64"
#endif
  }
}
