package check_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/virt"
)

const riseTrick = "credentials of another process, whole"

// TestGuestCredentialsRise gives a process the credentials of another, whole: so that one look
// cannot distinguish. Setuid programs and daemons that change their user are silent.
func TestGuestCredentialsRise(t *testing.T) {
	labtest.NeedQEMU(t)
	only, err := check.Select([]string{"stolen-credentials"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range zooKernels("6.12") {
		t.Run(kernel, func(t *testing.T) {
			g := labtest.Up(t, lab.Options{Kernel: kernel, Memory: 512 << 20, SMP: 2})
			s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			labtest.Output(t, g, `cp /bin/busybox /suid; chmod 4755 /suid
				su -s /bin/sh daemon -c "exec sleep 100000" </dev/null >/dev/null 2>&1 &
				su -s /bin/sh daemon -c "sleep 1; exec /suid sleep 100001" </dev/null >/dev/null 2>&1 &
				(while :; do su -s /bin/sh daemon -c "/suid id; sleep 0.1"; done) </dev/null >/dev/null 2>&1 &
				sleep 0.5; echo ok`)
			h := &check.History{}
			look := func() *check.Result {
				t.Helper()
				r, err := check.Run(t.Context(), s, only, check.Remember(h))
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			for range 10 {
				for _, f := range look().Findings {
					t.Errorf("in a clean guest: %s; expected %s; seen %s", f.Title, f.Expected, f.Seen)
				}
				time.Sleep(300 * time.Millisecond)
			}
			l, err := s.Look(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			z := &zoo{T: t, ram: labtest.OpenRAM(t, g), look: l}
			defer z.restore()
			victim := z.processWith("sleep", "100000")
			from := z.ptr(z.process(1) + z.offset("task_struct", "real_cred"))
			to := z.ptr(victim + z.offset("task_struct", "real_cred"))
			// From the user ID to behind the group_info: all that says who it is.
			first, last := z.offset("cred", "uid"), z.offset("cred", "group_info")+8
			z.write(to+first, z.read(from+first, int(last-first)))
			if r, err := check.Run(t.Context(), s, only); err != nil || len(r.Findings) > 0 {
				t.Errorf("one look tells: %v, %v; then the trick is not the one that needs two", r.Findings, err)
			}
			r := look()
			fired := map[string]bool{}
			for _, f := range r.Findings {
				fired[f.Check.ID] = true
			}
			recordZoo(t, riseTrick, fired, []string{"stolen-credentials"})
			if !slices.ContainsFunc(r.Findings, func(f *check.Finding) bool { return strings.Contains(f.Title, "without an exec") }) {
				t.Errorf("it was not found; gaps %v", r.Gaps)
			}
			for _, f := range r.Findings {
				t.Logf("%s; expected %s; seen %s", f.Title, f.Expected, f.Seen)
			}
		})
	}
}

// processWith is the task_struct of a process with these arguments.
func (z *zoo) processWith(args ...string) virt.Addr {
	z.Helper()
	for p, err := range z.look.Processes(z.Context()) {
		if err == nil && slices.Equal(p.Args, args) {
			return p.Task.Addr
		}
	}
	z.Fatalf("no process %v", args)
	return 0
}

// kernelThread is the task_struct of the kernel's thread of that name.
func (z *zoo) kernelThread(name string) virt.Addr {
	z.Helper()
	for p, err := range z.look.Processes(z.Context()) {
		if err == nil && p.KernelThread && p.Comm == name {
			return p.Task.Addr
		}
	}
	z.Fatalf("no kernel thread %s", name)
	return 0
}

// kthread is the struct kthread of that thread.
func (z *zoo) kthread(name string) virt.Addr {
	z.Helper()
	member := "worker_private"
	if _, err := z.look.Linux.Member("task_struct", member); err != nil {
		member = "set_child_tid" // up to 5.16
	}
	return z.ptr(z.kernelThread(name) + z.offset("task_struct", member))
}
