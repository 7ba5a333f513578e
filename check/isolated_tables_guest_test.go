package check_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/virt"
)

// TestGuestIsolatedTables: where page tables are isolated (PTI) the kernel maps the LDT of a process in the kernel's half, and that is silent, as is the page of
// vsyscalls. Whatever else is there is found, and so is a page of kernel memory that is mapped in place of that of vsyscalls.
func TestGuestIsolatedTables(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, kernel := range zooKernels("6.12") {
		t.Run(kernel, func(t *testing.T) {
			g := labtest.Up(t, lab.Options{Kernel: kernel, Append: "pti=on vsyscall=emulate", Files: map[string]string{"/tricks": guests.Program(t, "tricks")}})
			labtest.Output(t, g, "/tricks segment </dev/null >/tmp/segment 2>&1 & for i in 1 2 3 4 5 6 7 8 9 10; do grep -q . /tmp/segment && break; sleep 1; done; cat /tmp/segment; grep -q ready /tmp/segment")
			s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			only := checksOf(t, "kernel-mapping")
			silentFor(t, s, only)

			look, err := s.Look(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer look.Close()
			if !look.Linux.PTI {
				t.Fatal("page tables are not isolated")
			}
			z := &zoo{T: t, ram: labtest.OpenRAM(t, g), look: look}
			defer z.restore()
			const vsyscalls = virt.Addr(0xffff_ffff_ff60_0000)
			span := virt.Addr(1) << (12 + 9*(look.Linux.Space.Levels()-1))
			base := -(240 * span) // LDT_BASE_ADDR
			var mm virt.Addr
			for p, err := range look.Linux.Processes(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				at := z.ptr(p.Addr + z.offset("task_struct", "mm"))
				if at == 0 {
					continue
				}
				space, err := look.Linux.UserSpace(at)
				if err != nil {
					t.Fatal(err)
				}
				pages := 0
				for range space.Mappings(base, base+span-1) {
					pages++
				}
				if pages > 0 {
					mm = at
					t.Logf("a process has %d pages of an LDT at %#x", pages, uint64(base))
				}
			}
			if mm == 0 {
				t.Fatal("no process has an LDT in the kernel's half: nothing was tried")
			}
			if page, err := look.Linux.Space.Translate(vsyscalls); err != nil || !page.User() {
				t.Fatalf("no page of vsyscalls: %v, %v", page, err)
			}
			// Without an LDT nothing may be there.
			performFor(t, g, s, trick{"memory where an LDT would be", func(z *zoo) {
				z.put(mm+z.offset("mm_struct", "context")+z.offset("mm_context_t", "ldt"), 0)
			}, []string{"kernel-mapping"}}, only)
			performFor(t, g, s, trick{"kernel memory in place of vsyscalls", func(z *zoo) {
				z.entry(vsyscalls, func(e uint64) uint64 { return e + 1<<12 })
			}, []string{"kernel-mapping"}}, only)
			performFor(t, g, s, trick{"vsyscalls writable", func(z *zoo) {
				z.entry(vsyscalls, func(e uint64) uint64 { return e | 1<<1 })
			}, []string{"kernel-mapping"}}, only)
			silentFor(t, s, only)
		})
	}
}
