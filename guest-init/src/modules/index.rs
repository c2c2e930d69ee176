//! The files by which depmod(8) tells what modules there are, and what each needs (modules.dep(5)).

use std::collections::HashSet;

/// Their texts; each may be empty.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// modules.dep: "FILE: FILE..." a line, all that a module needs, those first that are loaded last.
    pub(super) dependencies: String,
    /// modules.alias: "alias OTHER-NAME MODULE" a line.
    pub(super) aliases: String,
    /// modules.softdep: "softdep MODULE pre: NAME... post: NAME..." a line; what it works without, more or less.
    pub(super) soft_dependencies: String,
}

impl Index {
    /// The files of what goes by this name or alias, in the order of loading, each once; none if nothing does.
    pub(super) fn files<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let mut order = Order::default();
        for line in self.lines(name) {
            for file in line.files() {
                // Of what softer needs need, only the hard ones: these cannot lead in a circle.
                let before = self.before(module_name(file));
                let before = before.flat_map(|name| self.lines(name));
                before
                    .flat_map(|line| line.files())
                    .for_each(|file| order.add(file));
                order.add(file);
            }
        }
        order.files
    }

    /// The lines of modules.dep about the modules with this name or alias.
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Line<'a>> {
        let names = std::iter::once(name).chain(self.aliased(name));
        names.flat_map(|name| {
            let lines = self.dependencies.lines().filter_map(Line::parse);
            lines.filter(move |line| is_same(module_name(line.file), name))
        })
    }

    fn aliased<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.aliases.lines().filter_map(move |line| {
            let mut words = line.split_ascii_whitespace();
            let found = words.next()? == "alias" && is_same(words.next()?, name);
            words.next().filter(|_| found)
        })
    }

    /// The names of what should be there before a module.
    fn before<'a>(&'a self, module: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.soft_dependencies.lines().filter_map(move |line| {
            let mut words = line.split_ascii_whitespace();
            let found = words.next()? == "softdep" && is_same(words.next()?, module);
            found.then_some(words)
        });
        lines.flat_map(|words| {
            let words = words.skip_while(|word| *word != "pre:").skip(1);
            words.take_while(|word| *word != "post:")
        })
    }
}

/// A line of modules.dep.
struct Line<'a> {
    file: &'a str,
    needs: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (file, needs) = line.split_once(':')?;
        Some(Self { file, needs })
    }

    /// In the order of loading, the module's own last.
    fn files(self) -> impl Iterator<Item = &'a str> {
        let needs = self.needs.split_ascii_whitespace().rev();
        needs.chain(std::iter::once(self.file))
    }
}

/// Files in order, each once.
#[derive(Default)]
struct Order<'a> {
    files: Vec<&'a str>,
    seen: HashSet<&'a str>,
}

impl<'a> Order<'a> {
    fn add(&mut self, file: &'a str) {
        if self.seen.insert(file) {
            self.files.push(file);
        }
    }
}

/// The name of the module in a file, whatever its directory and compression.
fn module_name(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split_once(".ko").map_or(name, |(name, _)| name)
}

/// To the kernel, `-` and `_` are the same in names of modules.
fn is_same(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    one.bytes().map(plain).eq(other.bytes().map(plain))
}

#[cfg(test)]
#[path = "index_test.rs"]
mod tests;
