package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/plugin"
)

const pluginLong = `Handle outsight's plugin for QEMU: it lets "outsight trace" see every event of a guest that QEMU translates (TCG).

The plugin has to be there when QEMU starts, and does nothing until a trace begins: the guest runs at full speed. It
needs QEMU 9.0 or newer, built with plugins, as Debian's is. Its plugin interface has no use for KVM: there,
"outsight watch" polls.`

// newPluginCommand is "outsight plugin".
func newPluginCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "plugin",
		Short:   "Write out the plugin that lets QEMU be traced",
		Long:    pluginLong,
		Example: "  outsight plugin install\n  outsight plugin install --path /opt/outsight.so",
		GroupID: groupHost,
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownVerb(c, args[0])
		}
		return c.Help()
	}
	c.AddCommand(newPluginInstallCommand())
	return c
}

const pluginInstallLong = `Write the plugin to a file, and print how QEMU and libvirt load it.

Root's is in /usr/local/lib/outsight, another user's in the XDG data folder. The socket is where outsight finds a
running plugin: a path of your choice, different for each machine, in a folder that QEMU can write.`

func newPluginInstallCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:     "install",
		Short:   "Write the plugin to a file, and print how to load it",
		Long:    pluginInstallLong,
		Example: "  outsight plugin install\n  qemu-system-x86_64 -accel tcg -plugin /usr/local/lib/outsight/outsight-x86_64.so,socket=/run/vm1.trace ...",
		Args:    noTarget,
	}
	c.Flags().StringVar(&path, "path", "", "write it to this `FILE`")
	c.RunE = func(c *cobra.Command, _ []string) error {
		at, err := plugin.Install(path)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), at)
		fmt.Fprintf(c.ErrOrStderr(), `
QEMU loads it with
  -accel tcg -plugin %s,socket=/run/NAME.trace

libvirt with this in the domain (type "qemu"; its <domain> names xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0"):
  <qemu:commandline>
    <qemu:arg value="-plugin"/>
    <qemu:arg value="%s,socket=/var/lib/libvirt/qemu/NAME.trace"/>
  </qemu:commandline>
`, at, at)
		return nil
	}
	return c
}
