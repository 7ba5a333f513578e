package check

import (
	"context"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// maxDisciplines is NR_LDISCS of 5.10 to 7.2 (include/uapi/linux/tty.h): 30, and 31 since 5.16.
const maxDisciplines = 30

// terminals judges who gets what is typed, and what is shown. A terminal has the functions of its driver from when it is made (alloc_tty_struct),
// and its line discipline is one of those that the kernel knows: what somebody puts in the way has a table of its own, and copies the rest.
func (w *opsWalk) terminals(ctx context.Context, _ *opsLayout) {
	type layout struct{ driver, ops, ldisc, ofDriver, ofLdisc kobj.Field }
	o, err := kobj.LayoutOf(w.s.Linux.Walker, "terminals and their drivers", func(r *kobj.Resolver, o *layout) {
		o.driver, o.ops, o.ldisc = r.Field("tty_struct", "driver"), r.Field("tty_struct", "ops"), r.Field("tty_struct", "ldisc")
		o.ofDriver, o.ofLdisc = r.Field("tty_driver", "ops"), r.Field("tty_ldisc", "ops")
	})
	if err != nil {
		w.fail(err)
		return
	}
	var known []virt.Addr
	if a, ok := w.s.Linux.Address("tty_ldiscs"); ok {
		if known, err = w.s.Linux.Pointers(a, maxDisciplines); err != nil {
			w.fail(fmt.Errorf("tty_ldiscs: %w", err))
		}
	}
	for t, err := range device.Terminals(ctx, w.s.Linux) {
		if err != nil {
			w.fail(err)
			continue
		}
		name := func() string { return "terminal " + t.Name }
		w.judge(&terminalOps, t.Ops, name)
		w.judge(&disciplineOps, t.DisciplineOps, name)
		r := w.s.Linux.Reader()
		ops, driver := r.Pointer(t.Addr, o.ops), r.Pointer(r.Pointer(t.Addr, o.driver), o.ofDriver)
		if r.Err == nil && ops != driver && driver != 0 && !w.faulty[ops] {
			w.found(&terminalOps, ops, name(), "is not served by the functions of its driver", fmt.Sprintf("the table of its driver, at %#x", uint64(driver)),
				fmt.Sprintf("%#x, %s", uint64(ops), w.inDataOf(ops)), ops, "")
		}
		ldisc := r.Pointer(t.Addr, o.ldisc)
		if ldisc == 0 || r.Err != nil || len(known) == 0 {
			continue // it is just being closed
		}
		if d := r.Pointer(ldisc, o.ofLdisc); r.Err == nil && !slices.Contains(known, d) && !w.faulty[d] {
			w.found(&disciplineOps, d, name(), "has a line discipline that the kernel does not know", "one of those that are registered (tty_ldiscs)",
				fmt.Sprintf("%#x, %s", uint64(d), w.inDataOf(d)), d, "")
		}
	}
}

// inDataOf says whose data a table lies in.
func (w *opsWalk) inDataOf(table virt.Addr) string {
	switch holder := w.owners.HolderAt(table).String(); holder {
	case noOwner:
		return "in memory that was allocated"
	default:
		return "in the data of " + holder
	}
}
