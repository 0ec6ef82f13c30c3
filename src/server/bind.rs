//! Binding the addresses of a listener: every worker gets sockets of its own, and errors name the key and the address.
//!
//! Two ways. Alone: an address that anybody else has is an error, another bearerd included. Shared: another bearerd of the same user
//! may have it too, until one of the two ends; nothing is given to us before `listen`, so that a start that fails takes nothing away from it.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{fs, net};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::accept::Sharing;
use crate::config::Listen;

const BACKLOG: i32 = 1024;

/// `key` is where the address stands in the configuration.
#[derive(Debug, thiserror::Error)]
#[error("{key}: can't listen on {address}: {why}")]
pub struct BindError {
    key: &'static str,
    address: String,
    why: String,
}

/// Bound addresses that nobody accepts from yet.
#[derive(Debug)]
pub struct Bound {
    /// The addresses as they are: a port 0 is replaced by what the system chose.
    pub(super) addresses: Vec<Listen>,
    /// For each worker its listeners.
    pub(super) workers: Vec<Vec<Listener>>,
    pub(super) files: Vec<SocketFile>,
    pub(super) sharing: Sharing,
    key: &'static str,
}

#[derive(Debug)]
pub enum Listener {
    Tcp(net::TcpListener),
    Unix(UnixListener),
}

/// The file of a Unix socket, removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Where the name goes that others use, once we listen.
    replaces: Option<PathBuf>,
    device: u64,
    inode: u64,
}

impl Bound {
    /// Binds `addresses` once for each of `workers`. `key` is their place in the configuration.
    pub fn bind(key: &'static str, addresses: &[Listen], workers: usize) -> Result<Self, BindError> {
        Self::with(Sharing::Alone, key, addresses, workers)
    }

    /// The same, where another bearerd may have the addresses too.
    pub fn shared(key: &'static str, addresses: &[Listen], workers: usize) -> Result<Self, BindError> {
        Self::with(Sharing::WithOthers, key, addresses, workers)
    }

    fn with(sharing: Sharing, key: &'static str, addresses: &[Listen], workers: usize) -> Result<Self, BindError> {
        let workers = (0..workers).map(|_| Vec::new()).collect();
        let mut bound = Self { addresses: Vec::new(), workers, files: Vec::new(), sharing, key };
        for address in addresses {
            bound.add(address).map_err(|error| bound.failed(address, &error))?;
        }
        Ok(bound)
    }

    fn failed(&self, address: &Listen, error: &io::Error) -> BindError {
        BindError { key: self.key, address: address.to_string(), why: why(error, self.sharing) }
    }

    /// From now on clients come to us, though nobody has to take them yet.
    pub(super) fn listen(&mut self) -> Result<(), BindError> {
        if self.sharing == Sharing::Alone {
            return Ok(());
        }
        for (at, address) in self.addresses.iter().enumerate() {
            for listeners in &self.workers {
                let Listener::Tcp(listener) = &listeners[at] else { continue };
                SockRef::from(listener).listen(BACKLOG).map_err(|error| self.failed(address, &error))?;
            }
        }
        for file in &mut self.files {
            file.replace().map_err(|error| BindError {
                key: self.key,
                address: format!("unix:{}", file.path.display()),
                why: why(&error, self.sharing),
            })?;
        }
        Ok(())
    }

    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    fn add(&mut self, address: &Listen) -> io::Result<()> {
        match address {
            Listen::Tcp(address) => {
                let any = address.port() == 0;
                let actual = if any || self.sharing == Sharing::Alone {
                    // Sockets that share a port would also share it with a second bearerd, silently. One that doesn't share
                    // finds out whether the port is free, and which one it is where any will do.
                    bind_tcp(*address, false)?.local_addr()?.as_socket().unwrap_or(*address)
                } else {
                    *address
                };
                for listeners in &mut self.workers {
                    let socket = bind_tcp(actual, true)?;
                    if self.sharing == Sharing::Alone {
                        // At once: as long as nobody listens, two processes may bind the same port.
                        socket.listen(BACKLOG)?;
                    }
                    listeners.push(Listener::Tcp(socket.into()));
                }
                self.addresses.push(Listen::Tcp(actual));
            }
            Listen::Unix(path) => {
                let (listener, file) = bind_unix(path, self.sharing)?;
                self.files.push(file);
                for listeners in &mut self.workers {
                    listeners.push(Listener::Unix(listener.try_clone()?));
                }
                self.addresses.push(address.clone());
            }
        }
        Ok(())
    }
}

fn bind_tcp(address: net::SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, sharing: Sharing) -> io::Result<(UnixListener, SocketFile)> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) if sharing == Sharing::WithOthers => return bind_unix_beside(path),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
        },
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    listen_unix(path)
}

/// Beside a name that another server answers under: a name of our own, until ours replaces it.
fn bind_unix_beside(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{}", std::process::id()));
    let (listener, mut file) = listen_unix(Path::new(&own))?;
    file.replaces = Some(path.to_owned());
    Ok((listener, file))
}

fn listen_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before the name exists, so that there is no moment at which everyone may connect; afterwards, because the umask counted.
    let mode = Mode::from_raw_mode(0o660);
    fchmod(&socket, mode)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let inode = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), replaces: None, device: inode.dev(), inode: inode.ino() };
    fs::set_permissions(path, fs::Permissions::from_mode(mode.as_raw_mode()))?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

impl SocketFile {
    /// Takes the name that another server answers under. Who has connected to that one stays there.
    fn replace(&mut self) -> io::Result<()> {
        if let Some(path) = self.replaces.take() {
            fs::rename(&self.path, &path)?;
            self.path = path;
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file can't be removed");
        }
    }
}

/// What the system said, and what it comes from most often.
fn why(error: &io::Error, sharing: Sharing) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse if sharing == Sharing::WithOthers => {
            "; a program has it that does not share it, or another user's"
        }
        io::ErrorKind::AddrInUse => "; another program, perhaps a second bearerd, has it",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE, a socket a directory to write to"
        }
        _ => "",
    };
    format!("{error}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(address: &Listen) -> Result<Bound, BindError> {
        Bound::bind("server.listen", std::slice::from_ref(address), 2)
    }

    #[test]
    fn workers_share_the_port_that_the_system_chose_and_nobody_else_does() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let any = Listen::Tcp(any.parse().unwrap());
            let bound = bind(&any).unwrap();
            assert_ne!(bound.addresses(), [any]);
            assert_eq!(bound.workers.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
            let error = bind(&bound.addresses()[0]).unwrap_err().to_string();
            let prefix = format!("server.listen: can't listen on {}", bound.addresses()[0]);
            assert!(error.starts_with(&prefix), "{error}");
            assert!(error.ends_with("; another program, perhaps a second bearerd, has it"), "{error}");
        }
    }

    fn shared(address: &Listen) -> Result<Bound, BindError> {
        Bound::shared("server.listen", std::slice::from_ref(address), 2)
    }

    #[test]
    fn who_shares_a_port_takes_nothing_before_it_listens_and_others_are_told() {
        let any = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let first = bind(&any).unwrap();
        let [Listen::Tcp(address)] = *first.addresses() else { panic!() };
        let here = Listen::Tcp(address);
        let second = shared(&here).unwrap();
        assert_eq!(second.addresses(), std::slice::from_ref(&here));
        drop(first);
        assert_eq!(net::TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let mut second = second;
        second.listen().unwrap();
        let _connected = net::TcpStream::connect(address).unwrap();
        assert!(bind(&here).is_err(), "one that wants it alone");
        drop(second);

        let foreign = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = shared(&Listen::Tcp(foreign.local_addr().unwrap())).unwrap_err().to_string();
        assert!(error.ends_with("; a program has it that does not share it, or another user's"), "{error}");
    }

    #[test]
    fn a_socket_file_goes_over_to_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("graph.sock");
        let address = Listen::Unix(path.clone());
        let first = shared(&address).unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let of_the_first = inode(&path);
        let mut second = shared(&address).unwrap();
        assert_eq!(inode(&path), of_the_first, "nothing is taken before it listens");
        second.listen().unwrap();
        assert_ne!(inode(&path), of_the_first);
        drop(first);
        assert!(path.exists(), "it is the second one's now");
        drop(second);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_file_is_made_fresh_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("graph.sock");
        let address = Listen::Unix(path.clone());

        let bound = bind(&address).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(bind(&address).unwrap_err().to_string().contains("another server answers"));
        drop(bound);
        assert!(!path.exists());

        // What a killed server leaves behind is taken over.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = bind(&address).unwrap();

        // A file that someone else has put there meanwhile stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(second);
        assert!(path.exists());
    }

    #[test]
    fn nothing_but_a_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        drop(std::os::unix::net::UnixListener::bind(&target).unwrap());
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "kept").unwrap();
        for path in [link, file.clone(), directory.path().to_owned()] {
            assert!(bind(&Listen::Unix(path)).unwrap_err().to_string().contains("something else than a socket"));
        }
        assert_eq!(fs::read_to_string(file).unwrap(), "kept");
    }
}
