//! A thread that polls the few futures which cross threads, and runs callbacks.
//!
//! `pyo3-async-runtimes` asks for a runtime; tokio's would not outlive a fork.
//! This one is a queue and a thread, made anew in a child (the parent's is
//! left alone there, since a lock in it may be a copy of a held one). Nothing
//! hot passes here: a round trip costs 60 to 200 microseconds.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{self, ContextExt, JoinError, Runtime};

use crate::sync::{Condvar, Mutex};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Set at interpreter exit: from then on no thread may ask for the GIL.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// The queue of one process, and whose it is.
struct Pool {
    process: u32,
    queue: Mutex<VecDeque<Arc<Task>>>,
    ready: Condvar,
    /// A task is being polled: it may be asking for the GIL.
    busy: AtomicBool,
    /// Threads between the end of a wait and the GIL.
    returning: AtomicUsize,
}

impl Pool {
    /// This process's pool, made on first use.
    fn current() -> &'static Pool {
        static POOL: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());
        let process = std::process::id();
        loop {
            let seen = POOL.load(Ordering::Acquire);
            if let Some(pool) = Self::shared(seen)
                && pool.process == process
            {
                return pool;
            }
            let made = Box::into_raw(Box::new(Self {
                process,
                queue: Mutex::default(),
                ready: Condvar::default(),
                busy: AtomicBool::new(false),
                returning: AtomicUsize::new(0),
            }));
            // A pool lives as long as its process: at most one is leaked by a
            // lost race, and one by each fork.
            if POOL
                .compare_exchange(seen, made, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
                && let Some(pool) = Self::shared(made)
            {
                pool.start();
            }
        }
    }

    #[allow(unsafe_code)]
    fn shared(pool: *mut Pool) -> Option<&'static Pool> {
        // SAFETY: null, or made by `Box::into_raw` above and never freed.
        unsafe { pool.as_ref() }
    }

    fn start(&'static self) {
        // Without a thread the awaits stay open; a deadline ends them.
        let _ = crate::probe::spawn_quiet("mtaio-worker", || self.run());
    }

    fn run(&self) {
        loop {
            let queue = self
                .ready
                .wait_while(self.queue.lock(), |queue| queue.is_empty());
            let task = { queue }.pop_front().expect("not empty, as waited for");
            self.busy.store(true, Ordering::SeqCst);
            if !STOPPED.load(Ordering::SeqCst) {
                task.poll();
            }
            self.busy.store(false, Ordering::SeqCst);
        }
    }

    fn push(&self, task: Arc<Task>) {
        self.queue.lock().push_back(task);
        self.ready.notify_one();
    }
}

struct Task {
    work: Mutex<Option<Work>>,
    done: Arc<Done>,
}

impl Task {
    fn poll(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        // Out of its slot while it runs: no lock is held over Python. Only the
        // worker polls, so nobody misses it meanwhile.
        let Some(mut work) = self.work.lock().take() else {
            return;
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            work.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        let result = match polled {
            Ok(Poll::Pending) => {
                *self.work.lock() = Some(work);
                return;
            }
            Ok(Poll::Ready(())) => Ok(()),
            Err(panic) => Err(Panicked(panic)),
        };
        drop(work);
        self.done.finish(result);
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        // The pool of the process that wakes: a child never wakes a parent's.
        Pool::current().push(self);
    }
}

/// How a task ended, for its handle.
#[derive(Default)]
struct Done {
    state: Mutex<Ending>,
}

#[derive(Default)]
struct Ending {
    result: Option<Result<(), Panicked>>,
    waker: Option<Waker>,
}

impl Done {
    fn finish(&self, result: Result<(), Panicked>) {
        let waker = {
            let mut state = self.state.lock();
            state.result = Some(result);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Waits for a task.
pub(crate) struct Handle(Arc<Done>);

impl Future for Handle {
    type Output = Result<(), Panicked>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock();
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// What a task that panicked left.
pub(crate) struct Panicked(Box<dyn std::any::Any + Send>);

impl JoinError for Panicked {
    fn is_panic(&self) -> bool {
        true
    }

    fn into_panic(self) -> Box<dyn std::any::Any + Send + 'static> {
        self.0
    }
}

/// See the module.
pub(crate) struct Worker;

impl Runtime for Worker {
    type JoinError = Panicked;
    type JoinHandle = Handle;

    fn spawn<F>(work: F) -> Handle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let done = Arc::<Done>::default();
        Pool::current().push(Arc::new(Task {
            work: Mutex::new(Some(Box::pin(work))),
            done: Arc::clone(&done),
        }));
        Handle(done)
    }

    fn spawn_blocking<F>(work: F) -> Handle
    where
        F: FnOnce() + Send + 'static,
    {
        Self::spawn(async move { work() })
    }
}

impl ContextExt for Worker {
    fn scope<F, R>(_: TaskLocals, work: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(work)
    }

    fn get_task_locals() -> Option<TaskLocals> {
        None
    }
}

/// The running loop, as the answering thread sees it: an answer that comes
/// after the loop was closed is nobody's, so it is let go without a traceback.
#[pyclass(frozen)]
struct LoopDoor {
    event_loop: Py<PyAny>,
}

#[pymethods]
impl LoopDoor {
    fn create_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.event_loop.bind(py).call_method0("create_future")
    }

    #[pyo3(signature = (*args, **options))]
    fn call_soon_threadsafe(
        &self,
        py: Python<'_>,
        args: &Bound<'_, PyTuple>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let event_loop = self.event_loop.bind(py);
        match event_loop.call_method("call_soon_threadsafe", args, options) {
            Err(error)
                if error.is_instance_of::<PyRuntimeError>(py)
                    && event_loop.call_method0("is_closed")?.is_truthy()? =>
            {
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }
}

/// Stands for a loop and its future at import. What `pyo3-async-runtimes` makes
/// on first use is made then: a fork amid that would harm the child.
#[pyclass(frozen)]
struct Rehearsal;

#[allow(clippy::unused_self)] // Python's calling convention
#[pymethods]
impl Rehearsal {
    fn create_future(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn add_done_callback(slf: Py<Self>, callback: &Bound<'_, PyAny>) -> PyResult<()> {
        callback.call1((slf,)).map(|_| ())
    }

    #[pyo3(signature = (call, *args, **_options))]
    fn call_soon_threadsafe(
        &self,
        call: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        call.call1(args).map(|_| ())
    }

    fn cancelled(&self) -> bool {
        false
    }

    fn set_result(&self, _value: &Bound<'_, PyAny>) {}

    fn set_exception(&self, _error: &Bound<'_, PyAny>) {}
}

/// A runtime that has done its work when `spawn` returns, on this thread.
struct AtOnce;

impl Runtime for AtOnce {
    type JoinError = Panicked;
    type JoinHandle = std::future::Ready<Result<(), Panicked>>;

    fn spawn<F>(work: F) -> Self::JoinHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let done = pin!(work).poll(&mut Context::from_waker(Waker::noop()));
        debug_assert!(done.is_ready(), "a rehearsal waits for nothing");
        std::future::ready(Ok(()))
    }

    fn spawn_blocking<F>(work: F) -> Self::JoinHandle
    where
        F: FnOnce() + Send + 'static,
    {
        work();
        std::future::ready(Ok(()))
    }
}

impl ContextExt for AtOnce {
    fn scope<F, R>(_: TaskLocals, work: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(work)
    }

    fn get_task_locals() -> Option<TaskLocals> {
        None
    }
}

/// Takes one answer, and one failure, the whole way.
fn rehearse(py: Python<'_>) -> PyResult<()> {
    for answer in [Ok(()), Err(PyRuntimeError::new_err(""))] {
        let locals = TaskLocals::new(Bound::new(py, Rehearsal)?.into_any());
        generic::future_into_py_with_locals::<AtOnce, _, ()>(py, locals, async { answer })?;
    }
    Ok(())
}

/// An asyncio future of the running loop that is done when `work` is.
pub(crate) fn future_into_py<F>(py: Python<'_>, work: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = ()> + Send + 'static,
{
    let event_loop = pyo3_async_runtimes::get_running_loop(py)?.unbind();
    let door = Bound::new(py, LoopDoor { event_loop })?;
    let locals = TaskLocals::new(door.into_any());
    generic::future_into_py_with_locals::<Worker, _, ()>(py, locals, async move {
        work.await;
        Ok(())
    })
}

/// Runs `call` on the worker, attached, unless the interpreter is going.
pub(crate) fn call_later(call: impl FnOnce(Python<'_>) + Send + 'static) {
    if !STOPPED.load(Ordering::SeqCst) {
        // The handle is dropped: nobody waits for a callback.
        drop(Worker::spawn_blocking(move || {
            Python::try_attach(call);
        }));
    }
}

/// Runs `wait` detached; a daemon thread that comes back after the interpreter
/// began to go never does.
///
/// Until 3.13 `CPython` ends such a thread where it asks for the GIL, by unwinding
/// it through our frames, which aborts the process.
pub(crate) fn detached<T: Send>(py: Python<'_>, wait: impl FnOnce() -> T + Send) -> T {
    let pool = Pool::current();
    let result = py.detach(|| {
        let result = wait();
        pool.returning.fetch_add(1, Ordering::SeqCst);
        let leaver = LEAVER.load(Ordering::SeqCst);
        if leaver != 0 && leaver != this_thread() {
            pool.returning.fetch_sub(1, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        }
        result
    });
    pool.returning.fetch_sub(1, Ordering::SeqCst);
    result
}

/// The thread that leaves the interpreter, once it does; else 0.
static LEAVER: AtomicUsize = AtomicUsize::new(0);

/// A number no other living thread has: where its own variable lies.
fn this_thread() -> usize {
    thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// Called at interpreter exit: no thread but this comes to Python from a wait
/// or from the worker after this.
#[pyfunction]
fn stop_worker(py: Python<'_>) {
    STOPPED.store(true, Ordering::SeqCst);
    LEAVER.store(this_thread(), Ordering::SeqCst);
    let pool = Pool::current();
    py.detach(|| {
        let end = Instant::now() + Duration::from_secs(1);
        let coming =
            || pool.busy.load(Ordering::SeqCst) || pool.returning.load(Ordering::SeqCst) > 0;
        while coming() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // Made now, because a fork during its first use would harm the child.
    let _ = m.py().get_type::<LoopDoor>();
    let _ = pyo3_async_runtimes::get_running_loop(m.py());
    rehearse(m.py())?;
    m.add_function(wrap_pyfunction!(stop_worker, m)?)
}
