package main

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/reference"
)

const profileLong = `Keep what guests are compared with: kernels and modules, by their build-ids.

"outsight check" compares a guest's kernel with the file that it was booted from. If the
host boots the guest with -kernel, that file is found without help. For guests that boot by
their firmware, and for dumps, add the guest's vmlinuz, or the package that it is from: it
is used from then on by every command and for every guest with that kernel. A distribution's signature
on it is verified, so it may come from anywhere, the guest itself included.

The files are in $OUTSIGHT_PROFILES, or in outsight/profiles in the XDG data folder.`

// newProfileCommand is "outsight profile": the store of references.
func newProfileCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "profile",
		Short:   "Keep kernels and modules that guests are compared with",
		Long:    profileLong,
		Example: "  outsight profile add linux-image-6.12.118+deb13-amd64_6.12.118-1_amd64.deb\n  outsight profile list\n  outsight profile verify",
		GroupID: groupHost,
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownVerb(c, args[0])
		}
		return c.Help()
	}
	c.AddCommand(newProfileAddCommand(), newProfileListCommand(), newProfileShowCommand(), newProfileRemoveCommand(), newProfileVerifyCommand(), newProfileTrustCommand())
	return c
}

// openStore opens the user's store.
func openStore() (*reference.Store, error) {
	dir := reference.Default()
	if dir == "" {
		return nil, usagef("there is no folder for profiles: set HOME or OUTSIGHT_PROFILES")
	}
	return reference.Open(dir, image.DefaultCache()), nil
}

func newProfileAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add FILE|PACKAGE...",
		Short: "Add kernels and modules: vmlinuz, vmlinux, .ko, .deb, .rpm",
		Long: `Add kernels and modules: a vmlinuz, a vmlinux (with or without debug information, which is left out), a module, or
every kernel and module in a Debian or RPM package. Nothing in a package is run, and package
managers are not needed.

Exit status: 0 all were added; 3 some could not be.`,
		Example: `  outsight profile add /boot/vmlinuz-6.12.118+deb13-amd64
  apt-get download linux-image-amd64 && outsight profile add linux-image-*.deb
  outsight profile add kernel-core-*.rpm kernel-modules-*.rpm
  outsight recover web /boot/vmlinuz-6.12.118+deb13-amd64 -o vmlinuz && outsight profile add vmlinuz`,
		Args: arguments(1, math.MaxInt, "a FILE or PACKAGE, or several"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := openStore()
			if err != nil {
				return err
			}
			var errs []error
			for _, path := range args {
				added, err := s.Add(c.Context(), path)
				if added != nil {
					reportAdded(c.OutOrStdout(), c.ErrOrStderr(), s, added)
					if err == nil && len(added.Skipped) > 0 {
						err = errIncomplete{}
					}
				}
				if errs = append(errs, err); c.Context().Err() != nil {
					break
				}
			}
			return firstLoud(errs)
		},
	}
}

// firstLoud is the errors that have something to say, or that something is incomplete.
func firstLoud(errs []error) error {
	var loud []error
	incomplete := false
	for _, err := range errs {
		if errors.Is(err, errIncomplete{}) {
			incomplete = true
		} else if err != nil {
			loud = append(loud, err)
		}
	}
	if len(loud) == 0 && incomplete {
		return errIncomplete{}
	}
	return errors.Join(loud...)
}

func reportAdded(stdout, stderr io.Writer, s *reference.Store, added *reference.Added) {
	for _, e := range added.Kernels {
		by, err := s.SignedBy(e)
		word := "signed by " + by
		if err != nil {
			word = "not verified (" + err.Error() + "): it proves as much as this file does"
		}
		fmt.Fprintln(stdout, sentence(fmt.Sprintf("added %s, profile %s; %s", e.Title(), reference.Short(e.ID), word)))
	}
	if added.Modules > 0 {
		fmt.Fprintf(stdout, "added %s\n", counted(added.Modules, "module"))
	}
	for _, skipped := range added.Skipped {
		line := skipped.Err.Error()
		if skipped.Name != "" {
			line = skipped.Name + ": " + line
		}
		if len(added.Kernels) > 0 || added.Modules > 0 {
			fmt.Fprintln(stderr, "outsight: skipped: "+sentence(line))
		}
	}
}

func newProfileRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID|RELEASE|NAME...",
		Short: "Remove kernels, modules and authorities",
		Long:  "Remove what an ID names (its beginning is enough), all of a kernel release, or what has a name.",
		Example: `  outsight profile remove 8692251ac73e
  outsight profile remove 6.12.118+deb13-amd64
  outsight profile remove "Example Secure Boot CA"`,
		Args: arguments(1, math.MaxInt, "an ID, a RELEASE or a NAME, or several"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := openStore()
			if err != nil {
				return err
			}
			for _, word := range args {
				found, err := s.Find(word)
				if err != nil {
					return err
				}
				if err := oneThing(word, found); err != nil {
					return err
				}
				for _, e := range found {
					if err := s.Remove(e); err != nil {
						return fmt.Errorf("remove %s: %w", e.Title(), err)
					}
				}
				what := found[0].Title()
				if len(found) > 1 {
					what = fmt.Sprintf("%s and %s", what, counted(len(found)-1, "other file"))
				}
				fmt.Fprintln(c.OutOrStdout(), sentence("removed "+what))
			}
			return nil
		},
	}
}

// oneThing says whether all that a word names is one thing: the files of a build, or a release.
func oneThing(word string, found []*reference.Entry) error {
	for _, e := range found[1:] {
		if e.ID != found[0].ID && (e.Release == "" || e.Release != found[0].Release) {
			return usagef("%q names %s (%s) and %s (%s): give more of the ID", word, found[0].Title(), reference.Short(found[0].ID), e.Title(), reference.Short(e.ID))
		}
	}
	return nil
}

func newProfileTrustCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "trust-ca FILE...",
		Short: "Believe kernels that are signed by a certificate of your own",
		Long: `Believe what is signed by the certificates in a FILE (PEM or DER), directly or through others: kernels that you
build and sign yourself, or those of a distribution that is not built in. "profile list" shows
them, "profile remove" takes them back.`,
		Example: `  outsight profile trust-ca /etc/pki/secureboot.pem --name Example
  outsight profile trust-ca MOK.der`,
		Args: arguments(1, math.MaxInt, "a FILE, or several"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := openStore()
			if err != nil {
				return err
			}
			for _, file := range args {
				added, err := s.Trust(file, name)
				for _, e := range added {
					fmt.Fprintln(c.OutOrStdout(), sentence(fmt.Sprintf("trusted: %s, SHA-256 %s", e.Name, e.ID)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "call the authority by this `NAME` (default: the subject of its certificate)")
	return c
}
