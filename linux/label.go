package linux

import (
	"fmt"

	"github.com/outsight-vmi/outsight/virt"
)

// labelLayout is where AppArmor keeps the label of a task.
type labelLayout struct {
	blobCred, security       Field
	hname, size              Field // struct aa_label
	profileLabel, mode, name Field // struct aa_profile
}

func (o *labelLayout) resolve(r *resolver) {
	o.blobCred, o.security = r.optional("lsm_blob_sizes", "lbs_cred"), r.optional("cred", "security")
	o.hname, o.size = r.optional("aa_label", "hname"), r.optional("aa_label", "size")
	o.profileLabel, o.mode = r.optional("aa_profile", "label"), r.optional("aa_profile", "mode")
	o.name = r.optional("aa_profile", "base.hname")
}

// maxLabel bounds a security label, in bytes.
const maxLabel = 4096

// label reads AppArmor's label of a cred as /proc/PID/attr/current shows it:
// "unconfined", or "name (mode)". That of SELinux is a number that only its policy
// tells; it is not read.
func (l *Lister) label(cred virt.Addr, o *labelLayout) (string, error) {
	on := func(symbol string, width int) bool {
		a, ok := l.s.Address(symbol)
		if !ok {
			return false
		}
		b := l.r.bytes(a, width)
		for _, v := range b {
			if v != 0 {
				return true
			}
		}
		return false
	}
	switch {
	case on("apparmor_initialized", 4):
		label, err := l.apparmor(cred, o)
		if err == nil {
			err = l.r.err
		}
		l.r.err = nil
		return label, err
	case on("selinux_state", 2): // enforcing, or initialized
		return "", fmt.Errorf("label of SELinux: %w", ErrUnsupported)
	}
	return "", nil
}

func (l *Lister) apparmor(cred virt.Addr, o *labelLayout) (string, error) {
	r := &l.r
	sizes, ok := l.s.Address("apparmor_blob_sizes")
	if !ok || !has(o.blobCred) || !has(o.security) || !has(o.hname) || !has(o.size) {
		return "", fmt.Errorf("label of AppArmor: %w", ErrUnsupported)
	}
	blob := r.pointer(cred, o.security)
	// Once the modules are ordered, their sizes have become places.
	place := r.num(sizes, o.blobCred)
	if blob == 0 || place > maxLabel {
		return "", r.err
	}
	label := r.ptr(blob + virt.Addr(place))
	if label == 0 || r.err != nil {
		return "", r.err
	}
	n := int(r.num(label, o.size))
	if n != 1 || !has(o.mode) || !has(o.profileLabel) {
		name := r.pointer(label, o.hname)
		if name == 0 {
			return "", r.err
		}
		return r.cString(name, maxLabel), r.err
	}
	// A label of one profile is that profile's own.
	profile := label - virt.Addr(o.profileLabel.Offset)
	name := r.cString(r.pointer(profile, o.name), maxLabel)
	modes := [...]string{"enforce", "complain", "kill", "unconfined", "user"}
	mode := r.num(profile, o.mode)
	const unconfined = 3 // APPARMOR_UNCONFINED
	switch {
	case r.err != nil:
		return "", r.err
	case mode == unconfined && name == "unconfined":
		return name, nil
	case mode < uint64(len(modes)):
		return name + " (" + modes[mode] + ")", nil
	}
	return name, nil
}
