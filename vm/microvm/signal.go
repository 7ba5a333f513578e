package microvm

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// patienceStop is how long the threads of a monitor may take to stop. A CPU of a guest
// stops at once; a thread that waits for a disk does not.
const patienceStop = 2 * time.Second

// freeze stops process p, and with it the CPUs of its guest: KVM runs one only while its
// thread runs. before is called just before, unless it is stopped already. thaw continues
// it.
func freeze(ctx context.Context, p proc.Process, before func() error) (thaw func() error, err error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return nil, err
	}
	if now, err := proc.Get(p.PID); err != nil || now.Started != p.Started {
		unix.Close(fd)
		return nil, unix.ESRCH
	}
	if stopped, err := proc.Stopped(p.PID); stopped || err != nil {
		unix.Close(fd)
		return func() error { return nil }, err // whoever stopped it will know when to start it
	}
	if err := before(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	thaw = func() error {
		defer unix.Close(fd)
		return unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := waitStopped(ctx, p.PID); err != nil {
		return nil, errors.Join(err, thaw())
	}
	return thaw, nil
}

func waitStopped(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, patienceStop)
	defer cancel()
	for wait := time.Millisecond; ; wait *= 2 {
		if stopped, err := proc.Stopped(pid); stopped || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.New("its threads do not stop")
		case <-time.After(wait):
		}
	}
}

// signalError is the sentence for a process that could not be stopped or continued.
func signalError(what string, p proc.Process, i vm.Info, err error) *vm.Error {
	e := ram.AccessError(what, p, i, err)
	if ram.IsPermission(err) {
		e.Why = "this user may not signal its process"
		e.Do = "run as its owner or root"
	}
	return e
}
