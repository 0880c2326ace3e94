package edgesdk;

/** How a model is loaded. Without rate, budget and level: the largest level that fits the free memory. */
public final class LoadOptions {
    int choose;
    double rate;
    long budgetBytes;
    int level;
    int contextTokens;
    int kvBits;
    int nThreads;
    int verify;
    int backend;

    /** What computes (edge_backend of edge.h, in its order). AUTO: a GPU that can be used, else the CPU. */
    public enum Backend { CPU, AUTO, OPENCL, CUDA }

    /** The largest level that gives up at least this share of the block weights; 0 is the full model. */
    public LoadOptions rate(double rate) {
        this.choose = 1;
        this.rate = rate;
        return this;
    }

    /** The largest level that needs at most this many bytes, everything counted. */
    public LoadOptions budgetBytes(long budgetBytes) {
        this.choose = 2;
        this.budgetBytes = budgetBytes;
        return this;
    }

    /** This level; 0 is the smallest. */
    public LoadOptions level(int level) {
        this.choose = 3;
        this.level = level;
        return this;
    }

    /** Tokens that a session holds; 0: the model's, at most 2048. */
    public LoadOptions contextTokens(int contextTokens) {
        this.contextTokens = contextTokens;
        return this;
    }

    /** Bits of the key/value cache: 8 or 16; 0: 8. */
    public LoadOptions kvBits(int kvBits) {
        this.kvBits = kvBits;
        return this;
    }

    /** Threads; 0: one per physical core. */
    public LoadOptions threads(int nThreads) {
        this.nThreads = nThreads;
        return this;
    }

    /** True: every hash is checked before the model is there, and not in the background. */
    public LoadOptions verifyFirst(boolean verifyFirst) {
        this.verify = verifyFirst ? 1 : 0;
        return this;
    }

    /** What computes; the CPU unless told otherwise. A GPU that was asked for and cannot be used is an {@link EdgeException}. */
    public LoadOptions backend(Backend backend) {
        this.backend = backend.ordinal();
        return this;
    }
}
