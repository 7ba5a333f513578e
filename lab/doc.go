// Package lab boots Linux guests for tests, for the demo and for looking at samples.
//
// It needs QEMU and an apt-based host, and no root. Kernels are Debian's own packages,
// fetched through a private apt configuration from whatever mirror the machine itself
// uses, the newest of each release at that moment, and kept in a cache (the directory
// outsight/lab in the user's cache directory, or $OUTSIGHT_LAB_CACHE), so that a kernel
// seen before boots offline.
//
//	g, err := lab.Up(ctx, lab.Options{Kernel: "6.12"})
//	…
//	out, err := g.Output(ctx, "ps aux")
//	…
//	err = g.Down()
//
// A guest outlives the process that started it; [Open] and [List] find it again. What a
// guest is asked with [Guest.Exec] goes over a serial port: nothing else of the guest is
// prepared, and its QMP socket is left free for whoever looks at it from outside.
package lab
