/// `inject.py PID NUMBER [FIRST]` in `World.directory`: makes a process that waits in a system call make another one (ptrace(2),
/// as root from outside), as a process in other hands would.
enum SystemCallInjection {
  static let setUp = """
    cat > \(World.directory)/inject.py <<'X'
    import ctypes, os, sys
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    pid, number, first = int(sys.argv[1]), int(sys.argv[2]), int((sys.argv + ["0"])[3])
    regs = (ctypes.c_ulonglong * 27)()
    assert libc.ptrace(16, pid, None, None) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(pid, 0); libc.ptrace(12, pid, None, ctypes.addressof(regs))
    regs[10], regs[15], regs[14], regs[13] = number, (1 << 64) - 1, first, 0  # rax, orig_rax, rdi, rsi
    regs[16] -= 2  # rip: back to the syscall instruction
    libc.ptrace(13, pid, None, ctypes.addressof(regs)); libc.ptrace(17, pid, None, None)
    X
    """
}
