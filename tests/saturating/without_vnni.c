/* An x86 CPU without VNNI, at native speed: preloaded, every CPUID instruction of a process faults and is answered with
 * what this CPU says, less AVX-512, AMX and VNNI. So ONNX Runtime adds up u8 x s8 as on the many CPUs that have AVX2 only.
 *
 *     cc -shared -fPIC -O2 -o without_vnni.so without_vnni.c && LD_PRELOAD=$PWD/without_vnni.so COMMAND
 *
 * Linux on x86-64 with CPUID faulting (`cpuid_fault` in /proc/cpuinfo). Children inherit it through LD_PRELOAD.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

/* Intel's and AMD's manuals, CPUID leaf 7. */
#define AVX512_EBX (1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31)
#define AVX512_ECX (1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14) /* VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
#define AVX512_AMX_EDX (1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25)
#define VNNI_AMX_EAX_1 (1u << 4 | 1u << 5 | 1u << 21)            /* AVX-VNNI, AVX512-BF16, AMX-FP16 */
#define VNNI_AMX_EDX_1 (1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19) /* AVX-VNNI-INT8, -INT16, AVX10 */

static struct sigaction theirs; /* what the process itself wants done about SIGSEGV */
static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);

static long cpuid_allowed(int yes) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, yes); }

static void answer(greg_t *registers) {
  const uint32_t leaf = (uint32_t)registers[REG_RAX], part = (uint32_t)registers[REG_RCX];
  uint32_t a = leaf, b, c = part, d;
  cpuid_allowed(1);
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  cpuid_allowed(0);
  if (leaf == 7 && part == 0) {
    b &= ~AVX512_EBX;
    c &= ~AVX512_ECX;
    d &= ~AVX512_AMX_EDX;
  } else if (leaf == 7 && part == 1) {
    a &= ~VNNI_AMX_EAX_1;
    d &= ~VNNI_AMX_EDX_1;
  }
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

static void on_fault(int signal_number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  /* A general protection fault, which is what a forbidden CPUID is, comes from the kernel without an address. */
  if (info->si_code == SI_KERNEL) {
    const uint8_t *instruction = (const uint8_t *)registers[REG_RIP];
    if (instruction[0] == 0x0f && instruction[1] == 0xa2) {
      answer(registers);
      return;
    }
  }
  if (theirs.sa_flags & SA_SIGINFO && theirs.sa_sigaction) {
    theirs.sa_sigaction(signal_number, info, context);
  } else if (theirs.sa_handler != SIG_DFL && theirs.sa_handler != SIG_IGN) {
    theirs.sa_handler(signal_number);
  } else {
    struct sigaction none = {.sa_handler = SIG_DFL};
    real_sigaction(SIGSEGV, &none, NULL); /* and the instruction faults once more */
  }
}

/* faulthandler, and WebAssembly in Node, install handlers of their own: they are called for faults that are not ours. */
int sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
  if (number != SIGSEGV) return real_sigaction(number, wanted, before);
  const struct sigaction was = theirs;
  if (wanted) theirs = *wanted;
  if (before) *before = was;
  return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
  struct sigaction wanted = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;
  return sigaction(number, &wanted, &before) == 0 ? before.sa_handler : SIG_ERR;
}

__attribute__((constructor)) static void begin(void) {
  real_sigaction = (int (*)(int, const struct sigaction *, struct sigaction *))dlsym(RTLD_NEXT, "sigaction");
  struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  real_sigaction(SIGSEGV, &ours, &theirs);
  if (cpuid_allowed(0) != 0) {
    fputs("without_vnni: this CPU or kernel has no CPUID faulting.\n", stderr);
    _exit(1);
  }
}
