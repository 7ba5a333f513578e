package check

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "security-state",
		Title:     "Security modules, lockdown and auditing that were switched off, or contradict themselves",
		Severity:  High,
		Technique: "T1562.001", // Impair Defenses: Disable or Modify Tools
		Source:    "lsm_names or lsm_idlist, security_hook_heads or static_calls_table, the *_hooks array of each security module, apparmor_enabled, selinux_state, kernel_locked_down, audit_enabled, saved_command_line",
		Proves: `A security module that is active lost some of its hooks, or calls another function than it registered; or a switch stands as nothing but a write into
the kernel's memory can put it: lockdown and AppArmor cannot be switched off while the kernel runs. Auditing and SELinux's enforcement can, by root: that is a finding of low severity.`,
		Blind: `Policies: one that allows everything does not contradict itself. A hook whose function was itself changed: the check of kernel text finds that. SELinux, where
its policy is in no state to be compared.`,
		Next: `Find out with "outsight dmesg TARGET" when it was switched off, and by whom; what the module forbade may have been done since. After a hook was removed the kernel
is to be treated as taken over.`,
		Example: `One hook of AppArmor was taken off the kernel's list, so that files are opened without it:

    $ outsight check lab:demo --only security-state
    SEVERITY  CONFIDENCE  CHECK           TITLE
    critical  certain     security-state  security module apparmor lost its hook apparmor_file_open`,
		Quick: true,
		Kept:  true,
		Run:   securityState,
	})
}

func securityState(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		for _, part := range []func(context.Context, *Subject) ([]*Finding, error){lostHooks, appArmor, seLinux, lockdown, auditing} {
			found, err := part(ctx, s)
			for _, f := range found {
				if !yield(f, nil) {
					return
				}
			}
			if err != nil && !errors.Is(err, kobj.ErrUnsupported) && !yield(nil, err) {
				return
			}
		}
	}
}

// stateFound is a finding about a setting of the kernel.
func stateFound(name, title, expected, seen string, at virt.Addr, raw []byte) *Finding {
	return &Finding{
		Confidence: Certain, Title: title, Object: Object{Kind: "security state", Name: name, Addr: at},
		Expected: expected, Seen: seen, Evidence: []Evidence{{Text: name, Addr: at, Bytes: raw}},
		Basis: "variables of the guest's kernel, compared with each other at one look",
		Show:  fmt.Sprintf("outsight read {} %#x 16", uint64(at)),
	}
}

// hookArrays is where security modules keep what they hook: an element is on the kernel's
// list, or in its static calls, for as long as the kernel runs.
type hookArrays struct {
	function, lsm, id, idName kobj.Field
	size                      uint32
	disabled                  kobj.Field // selinux_state, up to 6.3
}

// maxHooks bounds the elements of one array; the kernel has some 250 hooks.
const maxHooks = 1024

// lostHooks are hooks of active security modules that the kernel does not call.
func lostHooks(ctx context.Context, s *Subject) (found []*Finding, err error) {
	o, err := kobj.LayoutOf(s.Linux.Walker, "arrays of security hooks", func(r *kobj.Resolver, o *hookArrays) {
		const h = "security_hook_list"
		o.function, o.lsm, o.id = r.Field(h, "hook"), r.Optional(h, "lsm"), r.Optional(h, "lsmid") // 6.8
		o.idName, o.size, o.disabled = r.Optional("lsm_id", "name"), r.Size(h), r.Optional("selinux_state", "disabled")
	})
	if err != nil {
		return nil, err
	}
	called := map[virt.Addr]bool{}
	have := map[string]int{}
	for h, err := range hooks.SecurityHooks(ctx, s.Linux) {
		if err != nil {
			return found, err
		}
		called[h.Addr] = true
		have[h.LSM]++
		if f := otherCalled(s, h); f != nil {
			found = append(found, f)
		}
	}
	arrays, err := s.Linux.Choose("arrays of security hooks", func(k kernel.Symbol) bool {
		return strings.HasSuffix(k.Name, "_hooks") && !strings.HasPrefix(k.Name, "__") && (k.Type == 'd' || k.Type == 'D')
	})
	if err != nil {
		return found, err
	}
	// Up to 6.3 root could take SELinux out while the kernel runs, by /sys/fs/selinux/disable.
	disabled := false
	if a, ok := s.Linux.Address("selinux_state"); ok && o.disabled.Present() {
		r := s.Linux.Reader()
		disabled = r.Uint(a, o.disabled) != 0
	}
	for _, array := range arrays {
		for _, h := range s.hooksOf(o, s.Linux.Text+virt.Addr(array.Rel), array.Size) {
			if called[h.Addr] || h.LSM == "selinux" && disabled {
				continue
			}
			f := stateFound(fmt.Sprintf("%s[%d]", array.Name, h.Order), fmt.Sprintf("security module %s lost its hook %s", h.LSM, s.functionName(h.Func)),
				"on the kernel's list of what to call", "on no list", h.Addr, bytesAt(s, h.Addr, int(o.size)))
			f.Severity, f.Show = Critical, "outsight lsm {}"
			found = append(found, f)
		}
	}
	names, err := hooks.LSMs(s.Linux)
	for _, name := range names {
		// Some builds list integrity, which hooks nothing by itself.
		if have[name] == 0 && name != "integrity" && (name != "selinux" || !disabled) {
			f := stateFound("security module "+name, "security module "+name+" is active and has no hooks", "functions on the kernel's security hooks", "none", 0, nil)
			f.Severity, f.Show = Critical, "outsight lsm {}"
			found = append(found, f)
		}
	}
	return found, err
}

// otherCalled finds a static call that leads elsewhere than its hook, or that is off.
func otherCalled(s *Subject, h *hooks.SecurityHook) *Finding {
	if h.Active && (h.Called == 0 || h.Called == h.Func) {
		return nil
	}
	what, seen := "calls another function than it registered", s.functionName(h.Called)
	if !h.Active {
		what, seen = "is switched off", "its static key is off"
	}
	f := stateFound(h.LSM+" "+h.Hook, fmt.Sprintf("security hook %s of %s %s", h.Hook, h.LSM, what), s.functionName(h.Func)+" is called", seen, h.Addr, nil)
	f.Severity, f.Show = Critical, "outsight lsm {}"
	return f
}

// hooksOf are the elements of an array that were put on hooks.
func (s *Subject) hooksOf(o *hookArrays, start virt.Addr, size uint64) (hs []hooks.SecurityHook) {
	r := s.Linux.Reader()
	for i := range min(size/uint64(max(o.size, 1)), maxHooks) {
		a := start + virt.Addr(i*uint64(o.size))
		h := hooks.SecurityHook{Addr: a, Func: r.Pointer(a, o.function), Order: int(i)}
		name := r.Pointer(a, o.lsm)
		if id := r.Pointer(a, o.id); id != 0 {
			name = r.Pointer(id, o.idName)
		}
		if r.Err != nil {
			return hs
		}
		if name == 0 || h.Func == 0 {
			continue // its module is not active, or it is what aligns the next symbol
		}
		if h.LSM = r.CString(name, maxName); r.Err != nil {
			return hs
		}
		hs = append(hs, h)
	}
	return hs
}

// functionName is what a function is called, or its address.
func (s *Subject) functionName(a virt.Addr) string {
	if owners, err := s.Owners(); err == nil {
		if name := owners.CodeAt(a).Function(); name != "" {
			return name
		}
	}
	return fmt.Sprintf("%#x", uint64(a))
}

// variable reads an int of the kernel; ok is false where it has none of that name.
func (s *Subject) variable(name string) (v int32, at virt.Addr, ok bool, err error) {
	at, ok = s.Linux.Address(name)
	if !ok {
		return 0, 0, false, nil
	}
	u, err := s.Linux.Space.U32(at)
	if err != nil {
		return 0, at, false, fmt.Errorf("%s: %w", name, err)
	}
	return int32(u), at, true, nil
}

// appArmor is on for as long as the kernel runs once it is: its parameter cannot be written
// then (security/apparmor/lsm.c, param_set_aaintbool).
func appArmor(_ context.Context, s *Subject) ([]*Finding, error) {
	active, err := hooks.LSMs(s.Linux)
	if err != nil || !slices.Contains(active, "apparmor") {
		return nil, err
	}
	v, at, ok, err := s.variable("apparmor_enabled")
	if !ok || v != 0 {
		return nil, err
	}
	return []*Finding{stateFound("apparmor_enabled", "AppArmor is active, and says that it is disabled", "1", "0", at, []byte{0, 0, 0, 0})}, nil
}

// seLinux judges whether SELinux enforces.
func seLinux(_ context.Context, s *Subject) ([]*Finding, error) {
	o, err := kobj.LayoutOf(s.Linux.Walker, "state of SELinux", func(r *kobj.Resolver, o *struct{ enforcing, initialized, policy kobj.Field }) {
		const st = "selinux_state"
		o.enforcing, o.initialized, o.policy = r.Field(st, "enforcing"), r.Field(st, "initialized"), r.Field(st, "policy")
	})
	if err != nil {
		return nil, err
	}
	at, ok := s.Linux.Address("selinux_state")
	if !ok {
		return nil, nil
	}
	r := s.Linux.Reader()
	enforcing, initialized, policy := r.Uint(at, o.enforcing) != 0, r.Uint(at, o.initialized) != 0, r.Pointer(at, o.policy)
	switch {
	case r.Err != nil:
		return nil, fmt.Errorf("state of SELinux: %w", r.Err)
	case policy != 0 && !initialized:
		return []*Finding{stateFound("selinux_state.initialized", "SELinux has a policy, and says that it has none", "initialized", "not initialized", at, bytesAt(s, at, 16))}, nil
	case policy == 0 || enforcing:
		return nil, nil
	}
	boot, _, ok, err := s.variable("selinux_enforcing_boot")
	if !ok || boot == 0 {
		return nil, err
	}
	f := stateFound("selinux_state.enforcing", "SELinux was booted to enforce its policy, and only reports", "enforcing", "permissive", at, bytesAt(s, at, 16))
	f.Severity, f.Confidence = Low, Possible
	return []*Finding{f}, nil
}

// lockdownLevels are the boot parameters of lockdown and what kernel_locked_down is behind
// them: LOCKDOWN_INTEGRITY_MAX and LOCKDOWN_CONFIDENTIALITY_MAX.
var lockdownLevels = map[string]string{"integrity": "LOCKDOWN_INTEGRITY_MAX", "confidentiality": "LOCKDOWN_CONFIDENTIALITY_MAX"}

// lockdown can be raised while the kernel runs, never lowered (security/lockdown/lockdown.c,
// lock_kernel_down).
func lockdown(_ context.Context, s *Subject) ([]*Finding, error) {
	asked := s.parameter("lockdown")
	name, ok := lockdownLevels[asked]
	if !ok {
		return nil, nil
	}
	least, err := s.Linux.EnumValue("lockdown_reason", name)
	if err != nil {
		return nil, fmt.Errorf("lockdown: %w: %w", kobj.ErrUnsupported, err)
	}
	v, at, ok, err := s.variable("kernel_locked_down")
	if !ok || int64(v) >= least {
		return nil, err
	}
	return []*Finding{stateFound("kernel_locked_down", "the kernel was booted with lockdown="+asked+", and is not locked down so far", fmt.Sprintf("%d (%s) or more", least, asked), fmt.Sprint(v), at, bytesAt(s, at, 4))}, nil
}

// parameter is the last value that the kernel was booted with of a parameter.
func (s *Subject) parameter(name string) (value string) {
	text, err := s.Linux.CommandLine()
	if err != nil {
		return ""
	}
	for _, word := range strings.Fields(text) {
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			value = v
		}
	}
	return value
}

// auditing can be switched off by root, if it was not locked (auditctl -e 2).
func auditing(_ context.Context, s *Subject) ([]*Finding, error) {
	ever, _, ok, err := s.variable("audit_ever_enabled")
	if !ok || ever == 0 {
		return nil, err
	}
	on, at, ok, err := s.variable("audit_enabled")
	if !ok || on != 0 {
		return nil, err
	}
	f := stateFound("audit_enabled", "auditing was on since the guest booted, and is off", "1, or 2 for locked", "0", at, []byte{0, 0, 0, 0})
	f.Severity, f.Confidence = Low, Possible
	return []*Finding{f}, nil
}
