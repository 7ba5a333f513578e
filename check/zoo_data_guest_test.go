package check_test

import "github.com/outsight-vmi/outsight/virt"

// dataTricks are pointers to functions in the kernel's data that are led elsewhere.
func dataTricks() []trick {
	heap := []string{"data-pointer", "hidden-code"}
	return []trick{
		{"function of a neighbour table elsewhere", func(z *zoo) {
			z.executable()
			z.put(z.symbol("arp_tbl")+z.offset("neigh_table", "proxy_redo"), uint64(z.heap()))
		}, heap},
		{"function of routes elsewhere", func(z *zoo) {
			z.executable()
			z.put(z.symbol("ipv4_dst_ops")+z.offset("dst_ops", "redirect"), uint64(z.heap()))
		}, heap},
		{"clock of one processor elsewhere", func(z *zoo) {
			if _, err := z.look.Linux.Member("hrtimer_clock_base", "get_time"); err != nil {
				z.Skip("this kernel's processors have no clocks of their own")
			}
			base, err := z.look.Linux.PerCPU("hrtimer_bases", 0)
			if err != nil {
				z.Fatal(err)
			}
			size, err := z.look.Linux.StructSize("hrtimer_clock_base")
			if err != nil {
				z.Fatal(err)
			}
			const tai = 3 // HRTIMER_BASE_TAI, by which nothing waits
			z.executable()
			z.put(base+z.offset("hrtimer_cpu_base", "clock_base")+tai*virt.Addr(size)+z.offset("hrtimer_clock_base", "get_time"), uint64(z.heap()))
		}, heap},
		{"soft interrupt to a module of the kernel's own", func(z *zoo) {
			const poll = 5 // IRQ_POLL_SOFTIRQ
			z.put(z.symbol("softirq_vec")+8*poll, uint64(z.moduleText()))
		}, []string{"data-pointer"}},
		{"sealed pointer to a module of the kernel's own", func(z *zoo) {
			z.put(z.symbol("x86_platform")+z.offset("x86_platform_ops", "get_nmi_reason"), uint64(z.moduleText()))
		}, []string{"data-pointer"}},
		{"pointer to another function of the kernel", func(z *zoo) {
			z.put(z.symbol("arp_tbl")+z.offset("neigh_table", "proxy_redo"), uint64(z.symbol("kernel_power_off")))
		}, []string{"data-pointer"}},
		{"healthy: pointer to a function that the kernel itself puts somewhere", func(z *zoo) {
			z.put(z.symbol("arp_tbl")+z.offset("neigh_table", "proxy_redo"), uint64(z.symbol("process_timeout")))
		}, nil},
		{"healthy: variable beside functions that leads to a module of the kernel's own", func(z *zoo) {
			z.put(z.symbol("clocksource_tsc")+z.offset("clocksource", "suspend"), uint64(z.moduleText()))
		}, nil},
	}
}

// executable has the memory of [zoo.heap] executable.
func (z *zoo) executable() { z.entry(z.heap(), func(e uint64) uint64 { return e &^ (1 << 63) }) }
