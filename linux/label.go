package linux

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// labelLayout is where security modules keep the label of a task.
type labelLayout struct {
	blobCred, security         kobj.Field
	flags, size, vec, proxy    kobj.Field // struct aa_label
	proxyLabel                 kobj.Field // struct aa_proxy
	mode, name, ns             kobj.Field // struct aa_profile
	nsName, parent, unconfined kobj.Field // struct aa_ns
	smack, known               kobj.Field
	selinux                    kobj.Field // any member: SELinux is built in
}

func (o *labelLayout) resolve(r *kobj.Resolver) {
	o.blobCred, o.security = r.Optional("lsm_blob_sizes", "lbs_cred"), r.Optional("cred", "security")
	o.flags, o.size = r.Optional("aa_label", "flags"), r.Optional("aa_label", "size")
	o.vec, o.proxy = r.Optional("aa_label", "vec"), r.Optional("aa_label", "proxy")
	o.proxyLabel = r.Optional("aa_proxy", "label")
	o.mode, o.name = r.Optional("aa_profile", "mode"), r.Optional("aa_profile", "base.hname")
	o.ns = r.Optional("aa_profile", "ns")
	o.nsName, o.parent = r.Optional("aa_ns", "base.hname"), r.Optional("aa_ns", "parent")
	o.unconfined = r.Optional("aa_ns", "unconfined")
	o.smack, o.known = r.Optional("task_smack", "smk_task"), r.Optional("smack_known", "smk_known")
	o.selinux = r.Optional("selinux_state", "initialized")
}

const (
	maxLabel   = 4096 // bounds a security label, in bytes
	maxStacked = 64   // and the profiles that are stacked in one
)

// label reads the label of a cred as /proc/PID/attr/current shows it outside of all of
// AppArmor's namespaces: "unconfined", "name (mode)" or "a//&:inner:b (mode)"; or SELinux's,
// "user:role:type:level". It is empty only where no module gives labels.
func (l *ProcessReader) label(cred virt.Addr, o *labelLayout) (string, error) {
	label, err := l.labelOf(cred, o)
	if err == nil {
		err = l.r.Err
	}
	l.r.Err = nil
	if err != nil {
		return "", err
	}
	return label, nil
}

func (l *ProcessReader) labelOf(cred virt.Addr, o *labelLayout) (string, error) {
	for _, module := range [...]struct {
		name, symbol string
		width        int
		built        kobj.Field
		read         func(cred virt.Addr, o *labelLayout) (string, error)
	}{
		{"AppArmor", "apparmor_initialized", 4, o.size, l.apparmor},
		{"SELinux", "selinux_state", 2, o.selinux, l.selinux}, // enforcing, or initialized
		{"Smack", "smack_enabled", 4, o.smack, l.smack},
	} {
		at, ok := l.s.Address(module.symbol)
		switch {
		case !ok && !module.built.Present():
			continue
		case !ok:
			return "", fmt.Errorf("label of %s: whether it is on: symbol %s: %w: %w", module.name, module.symbol, kobj.ErrUnsupported, kernel.ErrNoSymbol)
		case !l.isSet(at, module.width) && (module.name != "SELinux" || !l.active("selinux")):
			continue
		}
		label, err := module.read(cred, o)
		if err == nil {
			err = l.r.Err
		}
		if err != nil {
			return "", fmt.Errorf("label of %s: %w", module.name, err)
		}
		return label, nil
	}
	return "", nil
}

// active reports whether a security module is among those that the kernel chose at boot:
// SELinux shows labels before it is initialized.
func (l *ProcessReader) active(module string) bool {
	r := &l.r
	if names, ok := l.s.Address("lsm_names"); ok { // until 6.18
		all := r.CString(r.Ptr(names), maxLabel)
		return r.Err == nil && slices.Contains(strings.Split(all, ","), module)
	}
	list, ok1 := l.s.Address("lsm_idlist")
	count, ok2 := l.s.Address("lsm_active_cnt")
	name, err := l.s.Member("lsm_id", "name")
	if !ok1 || !ok2 || err != nil {
		return false
	}
	for i := range min(r.U32(count), maxStacked) {
		if r.CString(r.Pointer(r.Ptr(list+virt.Addr(8*i)), name), maxLabel) == module {
			return r.Err == nil
		}
	}
	return false
}

// isSet reports whether any of the bytes at a is set.
func (l *ProcessReader) isSet(a virt.Addr, width int) bool {
	for _, v := range l.r.Bytes(a, width) {
		if v != 0 {
			return true
		}
	}
	return false
}

// credBlob is what a security module keeps in a cred.
func (l *ProcessReader) credBlob(cred virt.Addr, o *labelLayout, symbol string) (virt.Addr, error) {
	r := &l.r
	sizes, ok := l.s.Address(symbol)
	if !ok {
		return 0, fmt.Errorf("symbol %s: %w: %w", symbol, kobj.ErrUnsupported, kernel.ErrNoSymbol)
	}
	if !o.blobCred.Present() || !o.security.Present() {
		return 0, fmt.Errorf("cred.security: %w", kobj.ErrUnsupported)
	}
	blob := r.Pointer(cred, o.security)
	// Once the modules are ordered, their sizes have become places.
	place := r.Uint(sizes, o.blobCred)
	if r.Err != nil {
		return 0, r.Err
	}
	if blob == 0 || place > maxLabel {
		return 0, fmt.Errorf("%w: credentials at %#x have none", kobj.ErrBroken, uint64(cred))
	}
	return blob + virt.Addr(place), nil
}

// smack reads the label of Smack, built from the description: no kernel of the tests has it.
func (l *ProcessReader) smack(cred virt.Addr, o *labelLayout) (string, error) {
	if !o.known.Present() {
		return "", fmt.Errorf("struct smack_known: %w", kobj.ErrUnsupported)
	}
	task, err := l.credBlob(cred, o, "smack_blob_sizes")
	if err != nil {
		return "", err
	}
	return l.labelText(l.r.Pointer(l.r.Pointer(task, o.smack), o.known))
}

// labelText reads a name that is part of a label.
func (l *ProcessReader) labelText(a virt.Addr) (string, error) {
	text := l.r.CString(a, maxLabel)
	if l.r.Err == nil && len(text) == maxLabel {
		return "", fmt.Errorf("%w: name at %#x is longer than %d bytes", kobj.ErrBroken, uint64(a), maxLabel)
	}
	return text, l.r.Err
}

func (l *ProcessReader) apparmor(cred virt.Addr, o *labelLayout) (string, error) {
	for _, f := range [...]kobj.Field{o.size, o.vec, o.flags, o.proxy, o.proxyLabel, o.mode, o.name, o.ns, o.nsName, o.parent, o.unconfined} {
		if !f.Present() {
			return "", fmt.Errorf("struct aa_label, aa_profile or aa_ns: %w", kobj.ErrUnsupported)
		}
	}
	r := &l.r
	at, err := l.credBlob(cred, o, "apparmor_blob_sizes")
	if err != nil {
		return "", err
	}
	label := r.Ptr(at)
	// A profile was replaced or removed: what it became counts (aa_get_newest_label).
	const stale = 0x800 // FLAG_STALE
	if label != 0 && r.Uint(label, o.flags)&stale != 0 {
		label = r.Pointer(r.Pointer(label, o.proxy), o.proxyLabel)
	}
	n := r.Uint(label, o.size)
	if r.Err != nil {
		return "", r.Err
	}
	if n == 0 || n > maxStacked {
		return "", fmt.Errorf("%w: label at %#x stacks %d profiles", kobj.ErrBroken, uint64(label), n)
	}
	return l.stacked(o.vec.At(label), int(n), o)
}

// stacked is the label of the n profiles at vec, as aa_label_snxprint gives it.
func (l *ProcessReader) stacked(vec virt.Addr, n int, o *labelLayout) (string, error) {
	r := &l.r
	var text strings.Builder
	var shown virt.Addr // the namespace that was written last
	var mode uint32
	confined, mixed := false, false
	for i := range n {
		profile := r.Ptr(vec + virt.Addr(8*i))
		ns := r.Pointer(profile, o.ns)
		name, err := l.labelText(r.Pointer(profile, o.name))
		if err != nil {
			return "", err
		}
		if i > 0 {
			text.WriteString("//&")
		}
		if r.Pointer(ns, o.parent) != 0 && ns != shown {
			shown = ns
			nsName, err := l.labelText(r.Pointer(ns, o.nsName))
			if err != nil {
				return "", err
			}
			_, below, ok := strings.Cut(nsName, "//") // the root's name is not shown
			if !ok {
				return "", fmt.Errorf("%w: namespace at %#x is called %q", kobj.ErrBroken, uint64(ns), nsName)
			}
			text.WriteString(":" + below + ":")
		}
		text.WriteString(name)
		switch m := uint32(r.Uint(profile, o.mode)); {
		case r.Pointer(ns, o.unconfined) == profile: // has no mode to show
		case confined && m != mode:
			mixed = true
		default:
			mode, confined = m, true
		}
		if text.Len() > maxLabel {
			return "", fmt.Errorf("%w: longer than %d bytes", kobj.ErrBroken, maxLabel)
		}
	}
	switch {
	case mixed:
		text.WriteString(" (mixed)")
	case confined:
		text.WriteString(" (" + profileMode(mode) + ")")
	}
	return text.String(), r.Err
}

// profileMode is the name of a mode of AppArmor.
func profileMode(mode uint32) string {
	names := [...]string{"enforce", "complain", "kill", "unconfined", "user"} // 6.0 has the last
	if mode < uint32(len(names)) {
		return names[mode]
	}
	return fmt.Sprintf("mode %d", mode)
}
