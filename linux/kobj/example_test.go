package kobj_test

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// walker is of a guest with three processes.
func walker() *kobj.Walker {
	g := synth.New(synth.Options{})
	for pid, comm := range []string{"init", "sshd", "bash"} {
		g.Add(synth.Process{PID: int32(pid + 1), Comm: comm})
	}
	k, err := kernel.Find(context.Background(), g.Memory, kernel.Options{})
	if err != nil {
		panic(err)
	}
	return kobj.New(k)
}

// taskLayout is what the example needs of a task_struct.
type taskLayout struct{ tasks, pid, comm, cputime kobj.Field }

// The list of all processes, by the members that this kernel's types describe.
func ExampleWalker_List() {
	ctx, w := context.Background(), walker()
	o, err := kobj.LayoutOf(w, "tasks", func(r *kobj.Resolver, o *taskLayout) {
		r.Prefetch("init_task")
		o.tasks, o.pid, o.comm = r.Field("task_struct", "tasks"), r.Field("task_struct", "pid"), r.Field("task_struct", "comm")
		o.cputime = r.Field("task_struct", "se.sum_exec_runtime")
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	initTask, err := w.SymbolAddr("init_task")
	if err != nil {
		fmt.Println(err)
		return
	}
	r := w.Reader()
	for node, err := range w.List(ctx, o.tasks.At(initTask), 1000) {
		if err != nil {
			fmt.Println(err) // a broken link is not the end
			continue
		}
		task := node - virt.Addr(o.tasks.Offset)
		fmt.Println(r.Uint(task, o.pid), kobj.CString(r.Bytes(o.comm.At(task), int(o.comm.Size))), r.Uint(task, o.cputime))
	}
	if r.Err != nil {
		fmt.Println(r.Err)
	}
	// Output:
	// 1 init 0
	// 2 sshd 0
	// 3 bash 0
}

// One member, which may be a bit field, of a structure whose address is known.
func ExampleWalker_Member() {
	w := walker()
	pid, err := w.Member("task_struct", "pid")
	if err != nil {
		fmt.Println(err)
		return
	}
	initTask, err := w.SymbolAddr("init_task")
	if err != nil {
		fmt.Println(err)
		return
	}
	r := w.Reader()
	fmt.Println(r.Int(initTask, pid), r.Err)
	_, err = w.Member("task_struct", "no_such_member")
	fmt.Println(err != nil)
	// Output:
	// 0 <nil>
	// true
}
