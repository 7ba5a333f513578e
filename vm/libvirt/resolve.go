package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// Resolve is the [vm.Resolver] of libvirt:NAME: the domain of that name or UUID that runs
// on this host.
func (d *Driver) Resolve(ctx context.Context, name string) (target string, err error) {
	what := "open libvirt:" + name
	pids, err := proc.PIDs()
	if err != nil {
		return "", &vm.Error{What: what, Why: "/proc cannot be read: " + err.Error(), Do: "mount it", Err: err}
	}
	uuid, isUUID := parseUUID(name)
	var found []int
	var names []string
	for _, pid := range pids {
		p, err := proc.Get(pid)
		if err != nil {
			continue // ended meanwhile
		}
		i, ok := d.Recognise(p)
		if !ok {
			continue
		}
		names = append(names, i.Name)
		if own, _ := managed(p); i.Name == name || isUUID && own == uuid {
			found = append(found, pid)
		}
	}
	switch len(found) {
	case 0:
		return "", d.absent(ctx, what, name, names)
	case 1:
		return fmt.Sprintf("pid:%d", found[0]), nil
	}
	return "", &vm.Error{
		Kind: vm.ErrAmbiguous, What: what, Why: fmt.Sprintf("%d domains have that name, of several daemons", len(found)),
		Do: fmt.Sprintf("name one by pid:N: %s", strings.Trim(fmt.Sprint(found), "[]")),
	}
}

// absent says why no domain of that name runs.
func (d *Driver) absent(ctx context.Context, what, name string, running []string) error {
	e := &vm.Error{Kind: vm.ErrNotFound, What: what, Why: "no domain of that name or UUID runs here", Do: "list the machines with: outsight vms"}
	if len(running) > 0 {
		e.Why += ", only " + strings.Join(running[:min(len(running), 8)], ", ")
	}
	ctx, cancel := context.WithTimeout(ctx, patienceDial)
	defer cancel()
	for _, at := range daemonsOf(proc.Process{UID: os.Geteuid()}, true) {
		dom := &domain{hub: &d.hub, at: at}
		var known golibvirt.Domain
		err := dom.with(ctx, func(c *conn) (err error) {
			if uuid, ok := parseUUID(name); ok {
				known, err = c.lookUp(uuid)
				return err
			}
			known, err = c.l.DomainLookupByName(name)
			return err
		})
		dom.Close()
		switch {
		case err == nil && known.ID <= 0:
			e.Kind, e.Why, e.Do = vm.ErrNotStarted, "the domain is defined but not running", fmt.Sprintf("start it: virsh -c %s start %s", at.URI(), name)
			return e
		case err == nil:
			e.Why = "the domain runs, but this user cannot see its process"
			e.Do = "run as root, on the host itself rather than in a container"
			return e
		case errors.As(err, new(*unknownError)) || golibvirt.IsNotFound(err):
		default:
			why := explain("", err)
			e.Why += " (" + why.Why + ")"
		}
		if ctx.Err() != nil {
			break
		}
	}
	return e
}
