"""A request's body -> the image files in it, held in memory alone."""

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from alexnet.serve.refusals import Refusal

EXAMPLE = "Example: curl --data-binary @photograph.jpg ADDRESS, or curl -F image=@photograph.jpg."


class InMemoryParser(MultiPartParser):
    """Starlette's parser, which would write a file past a megabyte to the disk; this never does.

    What it may hold is bounded by the cap on bodies (`gate`).
    """

    spool_max_size = 1 << 62


async def uploaded(request: Request, most: int) -> list[bytes]:
    """Return the files of a multipart form, or the body itself as one file.

    Parameters
    ----------
    request : Request
        Of any content type; what is no ``multipart/form-data`` is taken as an image.
    most : int
        How many files it may have.

    Raises
    ------
    Refusal
        400 when there is no file, or the form cannot be read; 413 when there are too many.
    """
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        body = await request.body()
        if not body:
            raise Refusal(400, "The request has no image.", EXAMPLE)
        return [body]
    parser = InMemoryParser(request.headers, request.stream(), max_files=most, max_fields=most)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many" in error.message:
            fix = f"Send at most {most} images in one request."
            raise Refusal(413, "The form has more parts than are taken at once.", fix) from None
        raise Refusal(400, f"The form cannot be read: {error.message}", EXAMPLE) from None
    parts = [value for _, value in form.multi_items()]
    files = [await part.read() for part in parts if isinstance(part, UploadFile)]
    await form.close()
    if not files:
        raise Refusal(400, "The form has no file.", EXAMPLE)
    return files
