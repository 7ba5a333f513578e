package libvirt

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm/proc"
)

// daemon is where a daemon may listen.
type daemon struct {
	socket  string
	session bool
}

// URI is the libvirt name of the connection.
func (d daemon) URI() string {
	if d.session {
		return "qemu:///session"
	}
	return "qemu:///system"
}

// systemDir is where the daemons of the system have their sockets.
const systemDir = "/run/libvirt"

// sockets are the names that sockets have, the modular daemon's first: where there are
// both, the other one is virtproxyd's, which passes everything on.
var sockets = []string{"virtqemud-sock", "libvirt-sock"}

// daemonsOf are the daemons that may run process p, most likely first, with a socket that
// is there. Those of a session are believed only if the session is p's user's.
func daemonsOf(p proc.Process, readOnly bool) []daemon {
	var places []daemon
	if d, ok := named(os.Getenv("LIBVIRT_DEFAULT_URI")); ok {
		places = append(places, d)
	}
	system := in(systemDir, false, readOnly)
	var session []daemon
	for _, dir := range runtimeDirs(p.UID) {
		session = append(session, in(dir, true, false)...)
	}
	if ofSession(p) {
		places = append(places, append(session, system...)...)
	} else {
		places = append(places, append(system, session...)...)
	}
	return slices.DeleteFunc(places, func(d daemon) bool { return !d.exists(p.UID) })
}

// in are the sockets that may be in dir. Those to read from alone need no permission, and
// suffice for a look.
func in(dir string, session, readOnly bool) (all []daemon) {
	for _, name := range sockets {
		if readOnly {
			all = append(all, daemon{filepath.Join(dir, name+"-ro"), session})
		}
		all = append(all, daemon{filepath.Join(dir, name), session})
	}
	return all
}

// named is the daemon of a URI with a socket: qemu+unix:///system?socket=/run/x/libvirt-sock.
func named(uri string) (daemon, bool) {
	if uri == "" {
		return daemon{}, false
	}
	u, err := url.Parse(uri)
	if err != nil || u.Host != "" || u.Scheme != "qemu+unix" && u.Scheme != "qemu" {
		return daemon{}, false
	}
	socket := u.Query().Get("socket")
	return daemon{socket, u.Path == "/session"}, filepath.IsAbs(socket)
}

// runtimeDirs are where the daemon of the session of a user may have its sockets: libvirt
// asks GLib's g_get_user_runtime_dir, which falls back on the cache.
func runtimeDirs(uid int) (dirs []string) {
	add := func(base string) {
		if filepath.IsAbs(base) && !slices.Contains(dirs, filepath.Join(base, "libvirt")) {
			dirs = append(dirs, filepath.Join(base, "libvirt"))
		}
	}
	if uid == os.Geteuid() {
		add(os.Getenv("XDG_RUNTIME_DIR"))
		add(os.Getenv("XDG_CACHE_HOME"))
	}
	add("/run/user/" + strconv.Itoa(uid))
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		add(filepath.Join(u.HomeDir, ".cache"))
	}
	return dirs
}

// ofSession reports whether p looks like a domain of a session: files of a domain of the
// system are below /var/lib/libvirt/qemu, of a session below ~/.config/libvirt/qemu/lib.
func ofSession(p proc.Process) bool {
	return slices.ContainsFunc(p.Args, func(a string) bool {
		return strings.Contains(a, "/libvirt/qemu/lib/domain-") && strings.Contains(a, "masterKey0")
	})
}

// exists reports whether there is such a socket, made by somebody who may say what
// process of user uid is: root, or for a session that user.
func (d daemon) exists(uid int) bool {
	var st unix.Stat_t
	err := unix.Stat(d.socket, &st)
	if errors.Is(err, fs.ErrPermission) {
		return true // for the message
	}
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && (st.Uid == 0 || d.session && int(st.Uid) == uid)
}

// runs reports whether the daemon has process pid as the domain, as far as its run
// directory can be read: another QEMU may have been started with the same UUID.
func (d daemon) runs(name string, pid int) bool {
	if name != filepath.Base(name) {
		return false // libvirt allows no slash
	}
	for _, dir := range []string{"qemu", "qemu/run"} { // of the system, of a session
		f, err := os.Open(filepath.Join(filepath.Dir(d.socket), dir, name+".pid"))
		if err != nil {
			continue
		}
		var text [32]byte
		n, _ := f.Read(text[:])
		f.Close()
		is, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
		return err != nil || is == pid
	}
	return true
}
