package linux

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// labelLayout is where AppArmor keeps the label of a task.
type labelLayout struct {
	blobCred, security       kobj.Field
	hname, size              kobj.Field // struct aa_label
	profileLabel, mode, name kobj.Field // struct aa_profile
}

func (o *labelLayout) resolve(r *kobj.Resolver) {
	o.blobCred, o.security = r.Optional("lsm_blob_sizes", "lbs_cred"), r.Optional("cred", "security")
	o.hname, o.size = r.Optional("aa_label", "hname"), r.Optional("aa_label", "size")
	o.profileLabel, o.mode = r.Optional("aa_profile", "label"), r.Optional("aa_profile", "mode")
	o.name = r.Optional("aa_profile", "base.hname")
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
		b := l.r.Bytes(a, width)
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
			err = l.r.Err
		}
		l.r.Err = nil
		return label, err
	case on("selinux_state", 2): // enforcing, or initialized
		return "", fmt.Errorf("label of SELinux: %w", kobj.ErrUnsupported)
	}
	return "", nil
}

func (l *Lister) apparmor(cred virt.Addr, o *labelLayout) (string, error) {
	r := &l.r
	sizes, ok := l.s.Address("apparmor_blob_sizes")
	if !ok || !o.blobCred.Present() || !o.security.Present() || !o.hname.Present() || !o.size.Present() {
		return "", fmt.Errorf("label of AppArmor: %w", kobj.ErrUnsupported)
	}
	blob := r.Pointer(cred, o.security)
	// Once the modules are ordered, their sizes have become places.
	place := r.Uint(sizes, o.blobCred)
	if blob == 0 || place > maxLabel {
		return "", r.Err
	}
	label := r.Ptr(blob + virt.Addr(place))
	if label == 0 || r.Err != nil {
		return "", r.Err
	}
	n := int(r.Uint(label, o.size))
	if n != 1 || !o.mode.Present() || !o.profileLabel.Present() {
		name := r.Pointer(label, o.hname)
		if name == 0 {
			return "", r.Err
		}
		return r.CString(name, maxLabel), r.Err
	}
	// A label of one profile is that profile's own.
	profile := label - virt.Addr(o.profileLabel.Offset)
	name := r.CString(r.Pointer(profile, o.name), maxLabel)
	modes := [...]string{"enforce", "complain", "kill", "unconfined", "user"}
	mode := r.Uint(profile, o.mode)
	const unconfined = 3 // APPARMOR_UNCONFINED
	switch {
	case r.Err != nil:
		return "", r.Err
	case mode == unconfined && name == "unconfined":
		return name, nil
	case mode < uint64(len(modes)):
		return name + " (" + modes[mode] + ")", nil
	}
	return name, nil
}
